{{/* What values.schema.json cannot say: each stops the whole rendering with a sentence. Called first by configmap.yaml, which every
mode has. */}}
{{- define "steelyard.checks" -}}
{{- include "steelyard.checks.image" . -}}
{{- include "steelyard.checks.shutdown" . -}}
{{- include "steelyard.checks.disk" . -}}
{{- include "steelyard.checks.autoscaling" . -}}
{{- range $key, $job := .Values.training.jobs -}}
{{- include "steelyard.checks.job" (dict "key" $key "spec" $job.spec) -}}
{{- end -}}
{{- end -}}

{{- define "steelyard.checks.image" -}}
{{- if not .Values.image.repository -}}
{{- fail "image.repository is empty: say where the gateway's image is, such as registry.example.com/steelyard-gateway" -}}
{{- end -}}
{{- if not (regexMatch "^sha256:[0-9a-f]{64}$" .Values.image.digest) -}}
{{- fail (printf "image.digest '%s' is no digest: write sha256:<64 hex digits>, for a tag may be another image tomorrow" .Values.image.digest) -}}
{{- end -}}
{{- if not (regexMatch "^s3://[^/\\s]+" .Values.store.url) -}}
{{- fail (printf "store.url '%s' is no bucket: pods come and go with their disks, so write s3://bucket/prefix" .Values.store.url) -}}
{{- end -}}
{{- end -}}

{{/* A request may take timeout_s, draining must wait for it, and the kill must come after all that an exit does. */}}
{{- define "steelyard.checks.shutdown" -}}
{{- $s := .Values.settings -}}
{{- if le ($s.server.drain_s | float64) ($s.timeout_s | float64) -}}
{{- fail (printf "settings.server.drain_s (%v) must be more than settings.timeout_s (%v): a request that just began may take that long" $s.server.drain_s $s.timeout_s) -}}
{{- end -}}
{{- $needed := include "steelyard.exitSeconds" . -}}
{{- if le (.Values.shutdown.graceSeconds | float64) ($needed | float64) -}}
{{- fail (printf "shutdown.graceSeconds (%v) must be more than %s: preStopSeconds + server.linger_s + server.drain_s + 2 runtime.stop_s + ledger.drain_s + features.drain_s + 0.5" .Values.shutdown.graceSeconds $needed) -}}
{{- end -}}
{{- end -}}

{{/* 0.5 is the listener's own last look at connections that were cut off (gateway/http/listener.py, SWEEP_S). */}}
{{- define "steelyard.exitSeconds" -}}
{{- $s := .Values.settings -}}
{{- $before := ternary 0 .Values.shutdown.preStopSeconds (eq .Values.autoscaling.mode "knative") -}}
{{- addf $before $s.server.linger_s $s.server.drain_s (mulf 2 $s.runtime.stop_s) $s.ledger.drain_s $s.features.drain_s 0.5 -}}
{{- end -}}

{{- define "steelyard.checks.disk" -}}
{{- $held := add (int64 .Values.settings.repository.cache_bytes_max) (int64 .Values.settings.ledger.spill_bytes_max) -}}
{{- if ge $held (mul .Values.disk.cacheGiB 1073741824) -}}
{{- fail (printf "disk.cacheGiB (%v) must be more than settings.repository.cache_bytes_max and ledger.spill_bytes_max together (%d bytes): a full emptyDir evicts the pod" .Values.disk.cacheGiB $held) -}}
{{- end -}}
{{- end -}}

{{- define "steelyard.checks.autoscaling" -}}
{{- $a := .Values.autoscaling -}}
{{- if gt ($a.min | int) ($a.max | int) -}}
{{- fail (printf "autoscaling.min (%v) is more than autoscaling.max (%v)" $a.min $a.max) -}}
{{- end -}}
{{- if and (eq ($a.min | int) 0) (eq $a.mode "hpa") -}}
{{- fail "autoscaling.min is 0: a HorizontalPodAutoscaler starts nothing from zero; use mode keda with a wakeQuery, or mode knative" -}}
{{- end -}}
{{- if eq $a.mode "keda" -}}
{{- if not $a.keda.prometheus -}}
{{- fail "autoscaling.keda.prometheus is empty: KEDA asks a Prometheus for steelyard_saturation_ratio, such as http://prometheus.monitoring:9090" -}}
{{- end -}}
{{- if and (eq ($a.min | int) 0) (not $a.keda.wakeQuery) -}}
{{- fail "autoscaling.min is 0: no gateway runs then, so none reports steelyard_saturation_ratio; set autoscaling.keda.wakeQuery to a query that counts requests where they arrive, such as at the ingress" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "steelyard.checks.job" -}}
{{- $at := printf "training.jobs.%s.spec" .key -}}
{{- if not (regexMatch "^[^@\\s]+@sha256:[0-9a-f]{64}$" .spec.image) -}}
{{- fail (printf "%s.image '%s' has no digest: a tag may be another image at the next attempt; write name@sha256:..." $at .spec.image) -}}
{{- end -}}
{{- with .spec.schedule -}}
{{- if not (regexMatch (include "steelyard.cron" nil) (lower .cron)) -}}
{{- fail (printf "%s.schedule.cron '%s' is not cron: five fields, minute, hour, day of month, month, day of week, as in '0 3 * * 1'" $at .cron) -}}
{{- end -}}
{{- $fields := regexSplit "\\s+" (trim .cron) -1 -}}
{{- if and (ne (index $fields 2) "*") (ne (index $fields 4) "*") -}}
{{- fail (printf "%s.schedule.cron '%s' restricts the day of month and the day of week; leave one of them '*', or make two jobs" $at .cron) -}}
{{- end -}}
{{- end -}}
{{- end -}}
