{{/* Names, labels, and what is worked out of the values. */}}

{{/* --- names --- */}}

{{- define "lb.fit" -}}
{{- /* (list NAME SUFFIX): both with a dash between, in 63 characters. What is cut off is told by a hash. */ -}}
{{- $name := index . 0 -}}
{{- $suffix := index . 1 -}}
{{- $room := sub 63 (len $suffix) | int -}}
{{- if gt (len $name) $room -}}
{{- $name = printf "%s-%s" (trunc (sub $room 9 | int) $name | trimSuffix "-") (sha256sum $name | trunc 8) -}}
{{- end -}}
{{- print $name $suffix -}}
{{- end }}

{{- define "lb.name" -}}
{{- include "lb.fit" (list (default .Chart.Name .Values.nameOverride) "") -}}
{{- end }}

{{- define "lb.longname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | replace "." "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | replace "." "-" -}}
{{- end -}}
{{- end }}

{{- define "lb.fullname" -}}
{{- include "lb.fit" (list (include "lb.longname" .) "") -}}
{{- end }}

{{- define "lb.admin" -}}
{{- include "lb.fit" (list (include "lb.longname" .) "-admin") -}}
{{- end }}

{{- define "lb.greeter" -}}
{{- include "lb.fit" (list (include "lb.longname" .) "-greeter") -}}
{{- end }}

{{- define "lb.secretName" -}}
{{- default (include "lb.admin" .) .Values.adminToken.existingSecret -}}
{{- end }}

{{- define "lb.serviceAccountName" -}}
{{- default (ternary (include "lb.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name -}}
{{- end }}

{{- define "lb.image" -}}
{{- /* (dict "image" IMAGE "tag" DEFAULT) */ -}}
{{- if .image.digest -}}
{{- printf "%s@%s" .image.repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" .image.repository (default .tag .image.tag) -}}
{{- end -}}
{{- end }}

{{/* --- labels. Those that select never change, so they bear no version and nothing of the user's. --- */}}

{{- define "lb.selectorLabels" -}}
app.kubernetes.io/name: {{ include "lb.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "lb.greeterSelectorLabels" -}}
app.kubernetes.io/name: {{ include "lb.fit" (list (include "lb.name" .) "-greeter") }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "lb.commonLabels" -}}
{{- $labels := dict "app.kubernetes.io/version" .Chart.AppVersion "app.kubernetes.io/managed-by" .Release.Service -}}
{{- $_ := set $labels "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63) -}}
{{- range $label, $value := .Values.commonLabels }}{{ $_ := set $labels $label $value }}{{ end -}}
{{- range $label := list "app.kubernetes.io/name" "app.kubernetes.io/instance" }}{{ $_ := unset $labels $label }}{{ end -}}
{{- toYaml $labels }}
{{- end }}

{{- define "lb.labels" -}}
{{ include "lb.selectorLabels" . }}
{{ include "lb.commonLabels" . }}
{{- end }}

{{- define "lb.greeterLabels" -}}
{{ include "lb.greeterSelectorLabels" . }}
{{ include "lb.commonLabels" . }}
{{- end }}

{{/* --- what there is: "true" or nothing --- */}}

{{- define "lb.hasGreeter" -}}
{{- $without := or .Values.config.pools (and (eq .Values.mode "sidecar-server") .Values.workload.containers) -}}
{{- if kindIs "bool" .Values.greeter.enabled | ternary .Values.greeter.enabled (not $without) }}true{{ end -}}
{{- end }}

{{- define "lb.hasPods" -}}
{{- if or (eq .Values.mode "front") .Values.workload.containers -}}
true
{{- else if eq .Values.mode "sidecar-server" -}}
{{ include "lb.hasGreeter" . }}
{{- end -}}
{{- end }}

{{- define "lb.hasAutoscaling" -}}
{{- $asked := .Values.autoscaling.enabled -}}
{{- if kindIs "bool" $asked | ternary $asked (eq .Values.mode "front") }}{{ include "lb.hasPods" . }}{{ end -}}
{{- end }}

{{/* --- the configuration --- */}}

{{- define "lb.fill" -}}
{{- /* (dict "into" DICT "with" DEFAULTS): what isn't there. A null takes the default away. Not `merge`, for
     which a false isn't there. */ -}}
{{- $into := .into -}}
{{- range $key, $value := .with -}}
{{- if not (hasKey $into $key) }}{{ $_ := set $into $key $value }}{{ end -}}
{{- if kindIs "invalid" (get $into $key) }}{{ $_ := unset $into $key }}{{ end -}}
{{- end -}}
{{- end }}

{{- define "lb.tokenFile" -}}
/run/secrets/lb/token
{{- end }}

{{- define "lb.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- $bind := eq .Values.mode "sidecar-client" | ternary "127.0.0.1:8080" "0.0.0.0:8080" -}}
{{- /* As a sidecar: who is in the pod gets its SIGTERM first; then it is our turn, and there is nobody to tell. */ -}}
{{- $drains := dict "front" (dict "delay" "5s" "timeout" "25s") -}}
{{- $_ := set $drains "sidecar-server" (dict "delay" "0s" "timeout" "5s") -}}
{{- $_ := set $drains "sidecar-client" (dict "delay" "0s" "timeout" "10s") -}}
{{- $token := dict "file" (include "lb.tokenFile" .) -}}
{{- range $section := list "admin" "drain" -}}
{{- if not (hasKey $config $section) }}{{ $_ := set $config $section dict }}{{ end -}}
{{- end -}}
{{- if not (kindIs "map" $config.admin) -}}
{{- fail "config.admin: can't be off, since it answers Kubernetes' probes" -}}
{{- end -}}
{{- include "lb.fill" (dict "into" $config.admin "with" (dict "bind" "0.0.0.0:9901" "token" $token)) -}}
{{- include "lb.fill" (dict "into" $config.drain "with" (get $drains .Values.mode)) -}}
{{- include "lb.fill" (dict "into" $config "with" (dict "watch" true "listeners" (list (dict "bind" $bind)))) -}}
{{- if and (include "lb.hasGreeter" .) (not $config.pools) -}}
{{- $source := dict "kubernetes" (dict "service" (include "lb.greeter" .) "port" "http") -}}
{{- $pool := dict "discovery" (list $source) -}}
{{- if eq .Values.mode "sidecar-server" -}}
{{- $check := dict "path" "/healthz" "interval" "1s" "timeout" "1s" "rise" 1 -}}
{{- $backend := dict "id" "greeter" "address" "127.0.0.1:9001" -}}
{{- $pool = dict "backends" (list $backend) "health_check" $check -}}
{{- end -}}
{{- $_ := set $config "pools" (dict "greeter" $pool) -}}
{{- end -}}
{{- toYaml $config }}
{{- end }}

{{- define "lb.watches" -}}
{{- /* Whether the balancer reloads a changed file by itself. */ -}}
{{- if has (toString (include "lb.config" . | fromYaml).watch) (list "true" "on") }}true{{ end -}}
{{- end }}

{{- define "lb.mountsToken" -}}
{{- /* Whether the token is that of the chart, and not one that the configuration has from elsewhere. */ -}}
{{- $admin := (include "lb.config" . | fromYaml).admin -}}
{{- if eq (toString (get $admin.token "file")) (include "lb.tokenFile" .) }}true{{ end -}}
{{- end }}

{{- define "lb.adminPort" -}}
{{- regexFind "[0-9]+$" (include "lb.config" . | fromYaml).admin.bind -}}
{{- end }}

{{- define "lb.namespaces" -}}
{{- /* Where Services are whose endpoints the configuration asks this cluster for: a list, as JSON. */ -}}
{{- $found := list -}}
{{- range $pool := (include "lb.config" . | fromYaml).pools -}}
{{- range $source := (kindIs "map" $pool | ternary $pool dict).discovery -}}
{{- with $source.kubernetes -}}
{{- if not .kubeconfig }}{{ $found = append $found (default $.Release.Namespace .namespace) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $found | uniq | sortAlpha | toJson -}}
{{- end }}

{{- define "lb.mountsAccount" -}}
{{- if kindIs "bool" .Values.serviceAccount.automount -}}
{{- .Values.serviceAccount.automount -}}
{{- else -}}
{{- gt (include "lb.namespaces" . | fromJsonArray | len) 0 -}}
{{- end -}}
{{- end }}

{{/* --- the time to drain --- */}}

{{- define "lb.seconds" -}}
{{- /* (list PLACE DURATION): of 250ms, 5s, 1.5m or 1h. */ -}}
{{- $written := index . 1 | toString -}}
{{- if not (regexMatch "^[0-9]+(\\.[0-9]+)?(ms|s|m|h)$" $written) -}}
{{- fail (printf "%s: must be a duration such as 250ms, 5s or 1m, not %s" (index . 0) $written) -}}
{{- end -}}
{{- $unit := regexFind "[a-z]+$" $written -}}
{{- mulf (trimSuffix $unit $written | float64) (get (dict "ms" 0.001 "s" 1 "m" 60 "h" 3600) $unit) -}}
{{- end }}

{{- define "lb.timeToEnd" -}}
{{- /* In whole seconds, from the start of the end to the last request: what the grace has to exceed. */ -}}
{{- $drain := (include "lb.config" . | fromYaml).drain -}}
{{- $seconds := include "lb.seconds" (list "config.drain.delay" $drain.delay) | float64 -}}
{{- $seconds = addf $seconds (include "lb.seconds" (list "config.drain.timeout" $drain.timeout) | float64) -}}
{{- $seconds = addf $seconds (.Values.preStopSleepSeconds | float64) -}}
{{- if ne .Values.mode "front" }}{{ $seconds = addf $seconds (.Values.workload.drainSeconds | float64) }}{{ end -}}
{{- ceil $seconds | int -}}
{{- end }}

{{- define "lb.gracePeriod" -}}
{{- if kindIs "invalid" .Values.terminationGracePeriodSeconds -}}
{{- add (include "lb.timeToEnd" . | int) 10 -}}
{{- else -}}
{{- .Values.terminationGracePeriodSeconds | int -}}
{{- end -}}
{{- end }}
