{{- define "observer.name" -}}
{{- .Release.Name | trunc 53 | trimSuffix "-" -}}
{{- end -}}

{{- define "observer.selector" -}}
app.kubernetes.io/name: observer
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "observer.labels" -}}
{{ include "observer.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- end -}}

{{- define "observer.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "observer.account" -}}
{{- .Values.serviceAccount.name | default (include "observer.name" .) -}}
{{- end -}}

{{- /* Keys of the top level stand before the first table of the user's configuration. */ -}}
{{- define "observer.config" -}}
listen = "0.0.0.0:{{ .Values.port }}"
{{- if .Values.token.existingSecret }}
token_file = "/etc/observer-token/token"
{{- end }}
{{ .Values.config | trim }}

[tls]
{{- if .Values.tls.existingSecret }}
cert_file = "/etc/observer-tls/tls.crt"
key_file = "/etc/observer-tls/tls.key"
{{- else }}
self_signed = true
{{- end }}
{{- if or .Values.kubernetes.workloads .Values.kubernetes.events }}

[kubernetes]
workloads = {{ .Values.kubernetes.workloads }}
events = {{ .Values.kubernetes.events }}
{{- end }}
{{- end -}}

{{- /* Nodes whose kernel is too old, as far as the cluster may be asked. */ -}}
{{- define "observer.checkNodes" -}}
{{- range (lookup "v1" "Node" "" "").items -}}
{{- $kernel := .status.nodeInfo.kernelVersion -}}
{{- $release := regexFind "^[0-9]+[.][0-9]+" $kernel -}}
{{- if and (eq .status.nodeInfo.operatingSystem "linux") $release (semverCompare "<5.10.0" (printf "%s.0" $release)) -}}
{{- fail (printf "node %s runs Linux %s, and observer needs 5.10 or later: leave it out with nodeSelector or affinity, and set preflight.enabled=false" .metadata.name $kernel) -}}
{{- end -}}
{{- end -}}
{{- end -}}
