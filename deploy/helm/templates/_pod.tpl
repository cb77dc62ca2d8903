{{/* The balancer in a pod: the parts that front and sidecars have in common, and for charts of your own. */}}

{{- define "lb.resources" -}}
{{- $found := deepCopy .Values.resources -}}
{{- include "lb.fill" (dict "into" $found "with" (dict "requests" dict "limits" dict)) -}}
{{- $front := eq .Values.mode "front" -}}
{{- include "lb.fill" (dict "into" $found.requests "with" (dict "cpu" ($front | ternary "250m" "50m") "memory" "96Mi")) -}}
{{- include "lb.fill" (dict "into" $found.limits "with" (dict "memory" ($front | ternary "512Mi" "256Mi"))) -}}
{{- toYaml $found -}}
{{- end }}

{{- define "lb.probe" -}}
{{- /* (list PATH GIVEN DEFAULTS) */ -}}
{{- $found := deepCopy (index . 1) -}}
{{- include "lb.fill" (dict "into" $found "with" (index . 2)) -}}
{{- $_ := set $found "httpGet" (dict "path" (index . 0) "port" "admin") -}}
{{- toYaml $found -}}
{{- end }}

{{- define "lb.container" -}}
{{- $client := eq .Values.mode "sidecar-client" -}}
{{- $sidecar := ne .Values.mode "front" -}}
{{- $probes := .Values.probes -}}
{{- $given := list -}}
{{- range .Values.env }}{{ $given = append $given .name }}{{ end -}}
name: lb
image: {{ include "lb.image" (dict "image" .Values.image "tag" .Chart.AppVersion) | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
env:
  {{- if not (has "LB_ZONE" $given) }}
  # Where it runs, so that backends of the same zone come first. Pods have this label since Kubernetes 1.35.
  - name: LB_ZONE
    valueFrom:
      fieldRef: {fieldPath: "metadata.labels['topology.kubernetes.io/zone']"}
  {{- end }}
  {{- with .Values.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .Values.envFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
ports:
  {{- if not $client }}
  {{- $seen := list }}
  {{- range .Values.service.ports }}
  {{- if not (has (toString .targetPort) $seen) }}
  - name: {{ .name }}
    containerPort: {{ .targetPort | int }}
  {{- $seen = append $seen (toString .targetPort) }}
  {{- end }}
  {{- end }}
  {{- end }}
  - name: admin
    containerPort: {{ include "lb.adminPort" . }}
startupProbe:
  {{- /* What comes after a sidecar starts when this is well. A client wants a backend, too. */}}
  {{- $path := $client | ternary "/readyz" "/livez" }}
  {{- $defaults := dict "periodSeconds" 1 "failureThreshold" ($client | ternary 60 30) }}
  {{- include "lb.probe" (list $path $probes.startup $defaults) | nindent 2 }}
livenessProbe:
  {{- include "lb.probe" (list "/livez" $probes.liveness (dict "periodSeconds" 10 "timeoutSeconds" 3)) | nindent 2 }}
{{- if not $client }}
readinessProbe:
  {{- include "lb.probe" (list "/readyz" $probes.readiness (dict "periodSeconds" 2 "timeoutSeconds" 2)) | nindent 2 }}
{{- end }}
{{- with .Values.preStopSleepSeconds }}
lifecycle:
  preStop:
    sleep:
      seconds: {{ . }}
{{- end }}
resources:
  {{- include "lb.resources" . | nindent 2 }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
volumeMounts:
  - {name: lb-config, mountPath: /etc/lb, readOnly: true}
  {{- if include "lb.mountsToken" . }}
  - {name: lb-token, mountPath: {{ include "lb.tokenFile" . | dir }}, readOnly: true}
  {{- end }}
  - {name: lb-tmp, mountPath: /tmp}
  {{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "lb.sidecar" -}}
{{- /* An entry of initContainers. */ -}}
- {{ include "lb.container" . | nindent 2 | trim }}
  restartPolicy: Always
{{- end }}

{{- define "lb.volumes" -}}
{{- /* Entries of volumes. */ -}}
- name: lb-config
  configMap:
    name: {{ include "lb.fullname" . }}
{{- if include "lb.mountsToken" . }}
- name: lb-token
  secret:
    secretName: {{ include "lb.secretName" . }}
    defaultMode: 0440
    items:
      - {key: {{ .Values.adminToken.key | quote }}, path: {{ include "lb.tokenFile" . | base }}}
{{- end }}
- name: lb-tmp
  emptyDir: {medium: Memory, sizeLimit: 16Mi}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "lb.restartsFor" -}}
{{- /* An annotation: what in the configuration takes other pods. With `watch`, that is the number of processes
     and where the registry is kept; all else is reloaded. */ -}}
{{- $config := include "lb.config" . | fromYaml -}}
{{- if include "lb.watches" . -}}
{{- $store := kindIs "map" $config.registry | ternary $config.registry dict -}}
{{- $config = merge (pick $config "workers") (pick ($store | default dict) "store") -}}
{{- end -}}
checksum/config: {{ toYaml $config | sha256sum }}
{{- end }}

{{- define "lb.antiAffinity" -}}
{{- $term := dict "topologyKey" "kubernetes.io/hostname" -}}
{{- $_ := set $term "labelSelector" (dict "matchLabels" (include "lb.selectorLabels" . | fromYaml)) -}}
{{- if eq .Values.podAntiAffinity "hard" -}}
requiredDuringSchedulingIgnoredDuringExecution:
  {{- list $term | toYaml | nindent 2 }}
{{- else if eq .Values.podAntiAffinity "soft" -}}
preferredDuringSchedulingIgnoredDuringExecution:
  {{- list (dict "weight" 100 "podAffinityTerm" $term) | toYaml | nindent 2 }}
{{- end -}}
{{- end }}

{{- define "lb.greeterContainer" -}}
{{- /* On SIGTERM it goes on taking requests until every balancer has heard that it leaves. */ -}}
name: greeter
image: {{ include "lb.image" (dict "image" .Values.greeter.image "tag" "latest") | quote }}
imagePullPolicy: {{ .Values.greeter.image.pullPolicy }}
env:
  - name: GREETER_ID
    valueFrom:
      fieldRef: {fieldPath: metadata.name}
resources:
  requests: {cpu: 50m, memory: 32Mi}
  limits: {memory: 128Mi}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
{{- end }}
