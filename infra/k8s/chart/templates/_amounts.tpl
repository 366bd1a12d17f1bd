{{/* 1h30m as seconds, as trainers/spec/durations.py reads it. */}}
{{- define "steelyard.seconds" -}}
{{- $total := 0 -}}
{{- range $part := regexFindAll "[0-9]+[dhms]" . -1 -}}
{{- $seconds := dict "d" 86400 "h" 3600 "m" 60 "s" 1 -}}
{{- $total = add $total (mul (trimAll "dhms" $part | int64) (get $seconds (regexFind "[dhms]" $part))) -}}
{{- end -}}
{{- $total -}}
{{- end -}}

{{/* Gigabytes as a quantity, as trainers/launch/manifests.py writes it. */}}
{{- define "steelyard.mebibytes" -}}
{{- printf "%dMi" (round (mulf . 1024) 0 | int64) -}}
{{- end -}}

{{/* What a card sold with so many gigabytes reports at least, less one for `Gt`. */}}
{{- define "steelyard.gpuMebibytes" -}}
{{- sub (round (mulf . 1024 0.9) 0 | int64) 1 -}}
{{- end -}}
