{{/* What a schema can't say: values that don't fit each other. */}}

{{- define "lb.validate" -}}
{{- $sidecar := ne .Values.mode "front" -}}
{{- if and $sidecar (semverCompare ">=0.1.0-0 <1.29.0-0" .Capabilities.KubeVersion.Version) -}}
{{- fail (printf "mode: %s takes native sidecars, which Kubernetes has from 1.29 on; this is %s" .Values.mode .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- if and .Values.preStopSleepSeconds (semverCompare ">=0.1.0-0 <1.30.0-0" .Capabilities.KubeVersion.Version) -}}
{{- fail (printf "preStopSleepSeconds: Kubernetes can do so from 1.30 on; this is %s. config.drain.delay can do it everywhere" .Capabilities.KubeVersion.Version) -}}
{{- end -}}

{{- $config := include "lb.config" . | fromYaml -}}
{{- if not $config.pools -}}
{{- fail "config.pools: say where the backends are, as in {api: {discovery: [{kubernetes: {service: api, port: http}}]}}; the example greeters are turned off" -}}
{{- end -}}
{{- if and (eq .Values.mode "sidecar-server") (include "lb.hasGreeter" .) .Values.workload.containers -}}
{{- fail "greeter.enabled: the pods have workload.containers, so the greeter has no place in them" -}}
{{- end -}}
{{- if regexMatch "^(127\\.|localhost:|\\[::1\\])" $config.admin.bind -}}
{{- fail (printf "config.admin.bind: %s can't be reached by Kubernetes' probes; bind it to 0.0.0.0:9901 or [::]:9901" $config.admin.bind) -}}
{{- end -}}

{{- if ne .Values.mode "sidecar-client" -}}
{{- $bound := dict -}}
{{- range $config.listeners }}{{ $_ := set $bound (regexFind "[0-9]+$" .bind) .bind }}{{ end -}}
{{- range $index, $port := .Values.service.ports -}}
{{- $place := printf "service.ports[%d].targetPort" $index -}}
{{- $bind := get $bound (toString $port.targetPort) -}}
{{- if not $bind -}}
{{- fail (printf "%s: no listener of the configuration is bound to port %v; there are: %s" $place $port.targetPort (keys $bound | sortAlpha | join ", ")) -}}
{{- else if regexMatch "^(127\\.|localhost:|\\[::1\\])" $bind -}}
{{- fail (printf "%s: the listener %s can't be reached from outside of the pod" $place $bind) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- $needed := include "lb.timeToEnd" . | int -}}
{{- $grace := include "lb.gracePeriod" . | int -}}
{{- if lt $grace (add $needed 5 | int) -}}
{{- $own := $sidecar | ternary (printf " and the %vs of workload.drainSeconds" .Values.workload.drainSeconds) "" -}}
{{- fail (printf "terminationGracePeriodSeconds: %d is too short: config.drain (delay %s, timeout %s), the %vs of preStopSleepSeconds%s take %d, and 5 more are for the end itself. Make it %d or more, or leave it out" $grace $config.drain.delay $config.drain.timeout .Values.preStopSleepSeconds $own $needed (add $needed 5)) -}}
{{- end -}}

{{- with .Values.autoscaling -}}
{{- if gt (.minReplicas | int) (.maxReplicas | int) -}}
{{- fail (printf "autoscaling: minReplicas (%v) is more than maxReplicas (%v)" .minReplicas .maxReplicas) -}}
{{- end -}}
{{- end -}}
{{- with .Values.podDisruptionBudget -}}
{{- if and .enabled (eq (kindIs "invalid" .maxUnavailable) (kindIs "invalid" .minAvailable)) -}}
{{- fail "podDisruptionBudget: takes one of maxUnavailable and minAvailable; the other one is null" -}}
{{- end -}}
{{- end -}}
{{- with .Values.adminToken -}}
{{- if and .existingSecret .value -}}
{{- fail "adminToken: existingSecret and value are both given; it is one of them" -}}
{{- end -}}
{{- end -}}
{{- end }}
