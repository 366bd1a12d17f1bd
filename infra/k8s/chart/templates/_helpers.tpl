{{- define "steelyard.fullname" -}}
{{- if contains "steelyard" .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-steelyard" (.Release.Name | trunc 30 | trimSuffix "-") -}}
{{- end -}}
{{- end -}}

{{- define "steelyard.selector" -}}
app.kubernetes.io/name: steelyard
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "steelyard.labels" -}}
{{ include "steelyard.selector" . }}
app.kubernetes.io/component: gateway
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* The headless service: one address for each gateway, which Envoy tells apart. */}}
{{- define "steelyard.gateways" -}}
{{- printf "%s-gateways" (include "steelyard.fullname" .) -}}
{{- end -}}

{{- define "steelyard.envoySelector" -}}
app.kubernetes.io/name: steelyard-envoy
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "steelyard.envoyLabels" -}}
{{ include "steelyard.envoySelector" . }}
app.kubernetes.io/component: envoy
app.kubernetes.io/part-of: steelyard
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "steelyard.serviceAccount" -}}
{{- if .Values.serviceAccount.name -}}
{{- .Values.serviceAccount.name -}}
{{- else if .Values.serviceAccount.create -}}
{{- include "steelyard.fullname" . -}}
{{- else -}}
default
{{- end -}}
{{- end -}}

{{- define "steelyard.trainer" -}}
{{- if .Values.training.serviceAccount.name -}}
{{- .Values.training.serviceAccount.name -}}
{{- else if .Values.training.serviceAccount.create -}}
{{- printf "%s-trainer" (include "steelyard.fullname" .) -}}
{{- end -}}
{{- end -}}

{{- define "steelyard.keeperSelector" -}}
app.kubernetes.io/name: steelyard-keeper
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "steelyard.keeperLabels" -}}
{{ include "steelyard.keeperSelector" . }}
app.kubernetes.io/component: keeper
app.kubernetes.io/part-of: steelyard
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "steelyard.keeper" -}}
{{- if .Values.keeper.serviceAccount.name -}}
{{- .Values.keeper.serviceAccount.name -}}
{{- else if .Values.keeper.serviceAccount.create -}}
{{- printf "%s-keeper" (include "steelyard.fullname" .) -}}
{{- else -}}
default
{{- end -}}
{{- end -}}

{{/* settings as TOML. A JSON scalar or list of them is TOML too, and keeps large numbers whole, which toToml does not. */}}
{{- define "steelyard.toml" -}}
{{- range $key, $value := .Values.settings }}
{{- if not (kindIs "map" $value) }}
{{ $key }} = {{ $value | toJson }}
{{- end }}
{{- end }}
{{- range $section, $options := .Values.settings }}
{{- if kindIs "map" $options }}

[{{ $section }}]
{{- range $key, $value := $options }}
{{ $key }} = {{ $value | toJson }}
{{- end }}
{{- end }}
{{- end }}
{{ end -}}

{{- define "steelyard.names" -}}
# Names. Not bound to kube-dns: a node-local cache answers on the node's own address.
- ports:
    - {protocol: UDP, port: 53}
    - {protocol: TCP, port: 53}
{{- end -}}

{{/* How the store is reached, as environment. */}}
{{- define "steelyard.storeEnvironment" -}}
{{- with .Values.store.region }}
- name: AWS_REGION
  value: {{ . | quote }}
{{- end }}
{{- with .Values.store.endpoint }}
- name: AWS_ENDPOINT_URL_S3
  value: {{ . | quote }}
{{- end }}
{{- end -}}

{{/* Where the store is allowed to be: the same for the gateway, the keeper and training. */}}
{{- define "steelyard.egress" -}}
{{ include "steelyard.names" . }}
# The store, and with it the token service where a role is assumed.
- ports:
    {{- range .Values.networkPolicy.storePorts }}
    - {protocol: TCP, port: {{ . }}}
    {{- end }}
  {{- with .Values.networkPolicy.storeCidrs }}
  to:
    {{- range . }}
    - ipBlock: {cidr: {{ . | quote }}}
    {{- end }}
  {{- end }}
{{- with .Values.networkPolicy.egress }}
{{ toYaml . }}
{{- end }}
{{- end -}}
