{{/* The container, the same in a Deployment and in a Knative Service. */}}
{{- define "steelyard.container" -}}
name: gateway
image: {{ printf "%s@%s" .Values.image.repository .Values.image.digest | quote }}
command: [steelyard, serve]
args:
  - --config=/etc/steelyard/gateway.toml
  - --store={{ .Values.store.url }}
  - --host=0.0.0.0
  - --port={{ .Values.port }}
env:
  - name: STEELYARD_REPOSITORY__CACHE_DIR
    value: /var/cache/steelyard
  {{- if ne .Values.autoscaling.mode "knative" }}
  # A gateway that starts again in its pod is the same container to the ledger, which so learns when the one before it ended.
  - name: STEELYARD_ACCOUNTING__CONTAINER_ID
    valueFrom:
      fieldRef:
        fieldPath: metadata.name
  {{- end }}
  {{- with include "steelyard.storeEnvironment" . | trim }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- range $name, $value := .Values.env }}
  - name: {{ $name }}
    value: {{ $value | quote }}
  {{- end }}
{{- with .Values.store.secret }}
envFrom:
  - secretRef:
      name: {{ . }}
{{- end }}
ports:
  - name: {{ ternary "http1" "http" (eq .Values.autoscaling.mode "knative") }}
    containerPort: {{ .Values.port }}
    protocol: TCP
# Until the first readiness the socket is bound and nobody listens: a connection is refused.
startupProbe:
  {{- include "steelyard.probe" (dict "root" . "path" "/v2/health/ready") | nindent 2 }}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: {{ divf .Values.startupSeconds 2 | ceil | int }}
readinessProbe:
  {{- include "steelyard.probe" (dict "root" . "path" "/v2/health/ready") | nindent 2 }}
  periodSeconds: 5
  timeoutSeconds: 2
  failureThreshold: 2
# Patient: a busy gateway answers late, and killing it would make the others busier.
livenessProbe:
  {{- include "steelyard.probe" (dict "root" . "path" "/v2/health/live") | nindent 2 }}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
resources:
  {{- range $kind := list "requests" "limits" }}
  {{ $kind }}:
    cpu: {{ $.Values.resources.cpu | int | quote }}
    memory: {{ $.Values.resources.memory | quote }}
    ephemeral-storage: {{ printf "%dGi" (add $.Values.disk.cacheGiB $.Values.disk.tmpGiB 1) }}
  {{- end }}
securityContext:
  {{- include "steelyard.containerSecurity" . | nindent 2 }}
volumeMounts:
  - name: settings
    mountPath: /etc/steelyard
    readOnly: true
  - name: cache
    mountPath: /var/cache/steelyard
  - name: tmp
    mountPath: /tmp
{{- end -}}

{{- define "steelyard.probe" -}}
httpGet:
  path: {{ .path }}
  {{- if ne .root.Values.autoscaling.mode "knative" }}
  port: http
  {{- end }}
{{- end -}}

{{- define "steelyard.volumes" -}}
- name: settings
  configMap:
    name: {{ include "steelyard.fullname" . }}
- name: cache
  emptyDir:
    sizeLimit: {{ .Values.disk.cacheGiB }}Gi
- name: tmp
  emptyDir:
    sizeLimit: {{ .Values.disk.tmpGiB }}Gi
{{- end -}}

{{/* New settings are new pods. */}}
{{- define "steelyard.podMetadata" -}}
labels:
  {{- include "steelyard.labels" . | nindent 2 }}
  {{- with .Values.pod.labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
annotations:
  checksum/settings: {{ include "steelyard.toml" . | sha256sum }}
  {{- with .Values.pod.annotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}
