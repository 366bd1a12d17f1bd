{{/* What values.schema.json cannot say: each stops the whole rendering with a sentence. Called first by configmap.yaml, which every
mode has. */}}
{{- define "steelyard.checks" -}}
{{- include "steelyard.checks.image" . -}}
{{- include "steelyard.checks.shutdown" . -}}
{{- include "steelyard.checks.disk" . -}}
{{- include "steelyard.checks.autoscaling" . -}}
{{- if .Values.envoy.enabled -}}
{{- include "steelyard.checks.envoy" . -}}
{{- end -}}
{{- if .Values.keeper.enabled -}}
{{- include "steelyard.checks.keeper" . -}}
{{- end -}}
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

{{/* Envoy's file is the same for everybody: settings that it could not keep its promises with are refused. */}}
{{- define "steelyard.checks.envoy" -}}
{{- $e := .Values.envoy -}}
{{- $s := .Values.settings -}}
{{- $file := include "steelyard.envoyLimits" . | fromJson -}}
{{- if eq .Values.autoscaling.mode "knative" -}}
{{- fail "envoy.enabled and autoscaling.mode knative exclude each other: Knative's own proxies choose the pod, so none could keep a model at home; use mode keda, hpa or none" -}}
{{- end -}}
{{- if not $e.image.repository -}}
{{- fail "envoy.image.repository is empty: say where Envoy's image is, such as docker.io/envoyproxy/envoy" -}}
{{- end -}}
{{- if not (regexMatch "^sha256:[0-9a-f]{64}$" $e.image.digest) -}}
{{- fail (printf "envoy.image.digest '%s' is no digest: write sha256:<64 hex digits>, for a tag may be another image tomorrow" $e.image.digest) -}}
{{- end -}}
{{- if lt ($s.server.linger_s | float64) 2.0 -}}
{{- fail (printf "settings.server.linger_s (%v) must be 2 or more with envoy.enabled: Envoy asks for readiness every second, and must hear of a stop before the gateway stops listening" $s.server.linger_s) -}}
{{- end -}}
{{- if ge ($s.timeout_s | float64) ($file.answer_s | float64) -}}
{{- fail (printf "settings.timeout_s (%v) must be less than %v, for which Envoy waits: else its answer comes before the gateway's own" $s.timeout_s $file.answer_s) -}}
{{- end -}}
{{- if and (hasKey $s.server "keep_alive_s") (le ($s.server.keep_alive_s | float64) ($file.idle_s | float64)) -}}
{{- fail (printf "settings.server.keep_alive_s (%v) must be more than %v, after which Envoy closes: else the gateway closes while a request is on its way" $s.server.keep_alive_s $file.idle_s) -}}
{{- end -}}
{{- range $name := list "body_bytes_max" "head_bytes_max" "headers_max" -}}
{{- if and (hasKey $s.server $name) (gt (get $s.server $name | int64) (get $file $name | int64)) -}}
{{- fail (printf "settings.server.%s (%d) is more than Envoy's file lets through (%d)" $name (get $s.server $name | int64) (get $file $name | int64)) -}}
{{- end -}}
{{- end -}}
{{- $slowest := add $file.age_s $file.answer_s -}}
{{- if le ($e.preStopSeconds | int64) $slowest -}}
{{- fail (printf "envoy.preStopSeconds (%v) must be more than %d: a connection may be used for %v s, and the last answer on it may take %v s" $e.preStopSeconds $slowest $file.age_s $file.answer_s) -}}
{{- end -}}
{{- $units := dict "Mi" 1048576 "Gi" 1073741824 "M" 1000000 "G" 1000000000 -}}
{{- $memory := mul (regexFind "^[0-9]+" $e.resources.memory | int64) (get $units (regexFind "[MG]i?$" $e.resources.memory)) -}}
{{- $needed := div (mul ($file.heap_bytes_max | int64) 3) 2 -}}
{{- if lt $memory $needed -}}
{{- fail (printf "envoy.resources.memory (%s) must be at least %dMi: bodies in flight may hold %dMi of it before Envoy refuses more" $e.resources.memory (div $needed 1048576) (div ($file.heap_bytes_max | int64) 1048576)) -}}
{{- end -}}
{{- end -}}

{{- define "steelyard.checks.job" -}}
{{- $at := printf "training.jobs.%s.spec" .key -}}
{{- if not (regexMatch "^[^@\\s]+@sha256:[0-9a-f]{64}$" .spec.image) -}}
{{- fail (printf "%s.image '%s' has no digest: a tag may be another image at the next attempt; write name@sha256:..." $at .spec.image) -}}
{{- end -}}
{{- with .spec.schedule -}}
{{- include "steelyard.checks.schedule" (dict "at" (printf "%s.schedule.cron" $at) "cron" .cron "instead" "make two jobs") -}}
{{- end -}}
{{- end -}}

{{- define "steelyard.checks.schedule" -}}
{{- if not (regexMatch (include "steelyard.cron" nil) (lower .cron)) -}}
{{- fail (printf "%s '%s' is not cron: five fields, minute, hour, day of month, month, day of week, as in '0 3 * * 1'" .at .cron) -}}
{{- end -}}
{{- $fields := regexSplit "\\s+" (trim .cron) -1 -}}
{{- if and (ne (index $fields 2) "*") (ne (index $fields 4) "*") -}}
{{- fail (printf "%s '%s' restricts the day of month and the day of week; leave one of them '*', or %s" .at .cron .instead) -}}
{{- end -}}
{{- end -}}

{{- define "steelyard.checks.keeper" -}}
{{- $k := .Values.keeper -}}
{{- if not $k.image.repository -}}
{{- fail "keeper.image.repository is empty: say where the keeper's image is (make image IMAGE=keeper), such as registry.example.com/steelyard-keeper; the gateway's has no DuckDB" -}}
{{- end -}}
{{- if not (regexMatch "^sha256:[0-9a-f]{64}$" $k.image.digest) -}}
{{- fail (printf "keeper.image.digest '%s' is no digest: write sha256:<64 hex digits>, for a tag may be another image tomorrow" $k.image.digest) -}}
{{- end -}}
{{- range $job := list "compact" "verify" "budgets" -}}
{{- include "steelyard.checks.schedule" (dict "at" (printf "keeper.%s.schedule" $job) "cron" (get $k $job).schedule "instead" "schedule the other one yourself") -}}
{{- end -}}
{{- $ids := list -}}
{{- range $k.budgets.file.budget -}}
{{- if has .id $ids -}}
{{- fail (printf "keeper.budgets.file: two budgets have the id '%s', and the second would never tell anybody anything" .id) -}}
{{- end -}}
{{- $ids = append $ids .id -}}
{{- end -}}
{{- end -}}
