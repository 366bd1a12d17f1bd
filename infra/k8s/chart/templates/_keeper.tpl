{{/* What one run of the keeper is: `job` (its name), `values` (of that job), `args`, and `root`. */}}
{{- define "steelyard.keeperJob" -}}
{{- $keeper := .root.Values.keeper -}}
apiVersion: batch/v1
kind: CronJob
metadata:
  name: {{ include "steelyard.fullname" .root }}-{{ .job }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "steelyard.keeperLabels" .root | nindent 4 }}
    steelyard/keeper: {{ .job }}
spec:
  schedule: {{ .values.schedule | quote }}
  timeZone: UTC
  suspend: {{ .values.suspend }}
  # Two at once would do no harm, and the same work twice.
  concurrencyPolicy: Forbid
  startingDeadlineSeconds: 600
  successfulJobsHistoryLimit: 1
  failedJobsHistoryLimit: 3
  jobTemplate:
    metadata:
      labels:
        {{- include "steelyard.keeperLabels" .root | nindent 8 }}
        steelyard/keeper: {{ .job }}
    spec:
      backoffLimit: 2
      activeDeadlineSeconds: {{ .values.deadlineSeconds }}
      podFailurePolicy:
        rules:
          - action: Ignore
            onPodConditions:
              - type: DisruptionTarget
                status: "True"
          # 2 is a mistake in the settings, 3 a budget that is crossed: neither goes away by trying again.
          - action: FailJob
            onExitCodes:
              containerName: keeper
              operator: In
              values: [2, 3]
      template:
        metadata:
          labels:
            {{- include "steelyard.keeperLabels" .root | nindent 12 }}
            steelyard/keeper: {{ .job }}
            {{- with $keeper.pod.labels }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          {{- with $keeper.pod.annotations }}
          annotations:
            {{- toYaml . | nindent 12 }}
          {{- end }}
        spec:
          restartPolicy: Never
          serviceAccountName: {{ include "steelyard.keeper" .root }}
          automountServiceAccountToken: false
          enableServiceLinks: false
          terminationGracePeriodSeconds: 30
          securityContext:
            {{- include "steelyard.podSecurity" .root | nindent 12 }}
          {{- with include "steelyard.nodes" (dict "pullSecrets" $keeper.image.pullSecrets "pod" $keeper.pod) | trim }}
          {{- . | nindent 10 }}
          {{- end }}
          containers:
            - {{ include "steelyard.keeperContainer" . | indent 14 | trim }}
          volumes:
            - name: tmp
              emptyDir:
                sizeLimit: {{ $keeper.tmpGiB }}Gi
            {{- if eq .job "budgets" }}
            - name: budgets
              configMap:
                name: {{ include "steelyard.fullname" .root }}-budgets
            {{- end }}
{{- end -}}

{{- define "steelyard.keeperContainer" -}}
{{- $keeper := .root.Values.keeper -}}
name: keeper
image: {{ printf "%s@%s" $keeper.image.repository $keeper.image.digest | quote }}
command: [steelyard]
args:
  {{- range .args }}
  - {{ . }}
  {{- end }}
  - --store={{ .root.Values.store.url }}
env:
  - name: XDG_CACHE_HOME
    value: /tmp
  {{- with include "steelyard.storeEnvironment" .root | trim }}
  {{- . | nindent 2 }}
  {{- end }}
{{- $secrets := list ($keeper.secret | default .root.Values.store.secret) (ternary $keeper.budgets.secret "" (eq .job "budgets")) | compact }}
{{- if $secrets }}
envFrom:
  {{- range $secrets }}
  - secretRef:
      name: {{ . }}
  {{- end }}
{{- end }}
resources:
  {{- range $kind := list "requests" "limits" }}
  {{ $kind }}:
    cpu: {{ $keeper.resources.cpu | int | quote }}
    memory: {{ $keeper.resources.memory | quote }}
    ephemeral-storage: {{ printf "%dGi" (add $keeper.tmpGiB 1) }}
  {{- end }}
securityContext:
  {{- include "steelyard.containerSecurity" .root | nindent 2 }}
volumeMounts:
  - name: tmp
    mountPath: /tmp
  {{- if eq .job "budgets" }}
  - name: budgets
    mountPath: /etc/steelyard
    readOnly: true
  {{- end }}
{{- end -}}

{{/* Whether budgets are checked: by the job, and by somebody having written one. */}}
{{- define "steelyard.hasBudgets" -}}
{{- if and .Values.keeper.enabled .Values.keeper.budgets.enabled .Values.keeper.budgets.file.budget -}}yes{{- end -}}
{{- end -}}

{{/* budgets.file as TOML. */}}
{{- define "steelyard.budgetsToml" -}}
{{- range .budget }}
[[budget]]
{{- range $key, $value := . }}
{{ $key }} = {{ $value | toJson }}
{{- end }}
{{ end }}
{{- with .webhook }}
[webhook]
{{- range $key, $value := . }}
{{ $key }} = {{ $value | toJson }}
{{- end }}
{{- end }}
{{- end -}}
