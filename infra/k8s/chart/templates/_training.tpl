{{/* Made by `make chart` from trainers/launch/manifests.py: not to be edited. */}}

{{- define "steelyard.job" -}}
{{- $spec := mergeOverwrite (fromJson `{"resources":{"gpu":0,"cpu":2,"memory_gb":4.0,"shm_gb":1.0},"market":{"prefer":"spot"},"limits":{"wall":"1d","attempt":"6h","no_progress_attempts":3}}`) (deepCopy .spec) }}
{{- $wall := include "steelyard.seconds" $spec.limits.wall | int64 }}
{{- $attempt := include "steelyard.seconds" $spec.limits.attempt | int64 }}
{{- $killed := add $attempt (div (add $attempt 9) 10) }}
apiVersion: batch/v1
kind: Job
metadata:
  name: steelyard-{{ .name }}
  namespace: {{ .root.Release.Namespace | toJson }}
  labels:
    app.kubernetes.io/name: steelyard-train
    steelyard/job: {{ $spec.name | toJson }}
    steelyard/run: {{ .name | toJson }}
spec:
  backoffLimit: 9
  activeDeadlineSeconds: {{ $wall }}
  podFailurePolicy:
    rules:
      - action: Ignore
        onPodConditions:
          - type: DisruptionTarget
            status: "True"
      - action: FailJob
        onExitCodes:
          containerName: train
          operator: In
          values:
            - 64
            - 65
            - 66
            - 70
            - 73
      - action: Count
        onExitCodes:
          containerName: train
          operator: NotIn
          values:
            - 64
            - 65
            - 66
            - 70
            - 73
  template:
    metadata:
      labels:
        app.kubernetes.io/name: steelyard-train
        steelyard/job: {{ $spec.name | toJson }}
        steelyard/run: {{ .name | toJson }}
    spec:
      restartPolicy: Never
      activeDeadlineSeconds: {{ $killed }}
      terminationGracePeriodSeconds: 110
      automountServiceAccountToken: false
      enableServiceLinks: false
      securityContext:
        runAsNonRoot: true
        runAsUser: 65532
        runAsGroup: 65532
        fsGroup: 65532
        seccompProfile:
          type: RuntimeDefault
{{- if .serviceAccount }}
      serviceAccountName: {{ .serviceAccount | toJson }}
{{- end }}
{{- if or $spec.resources.gpu_memory_gb (eq $spec.market.prefer "spot") }}
      affinity:
        nodeAffinity:
{{- if $spec.resources.gpu_memory_gb }}
          requiredDuringSchedulingIgnoredDuringExecution:
            nodeSelectorTerms:
              - matchExpressions:
                  - key: nvidia.com/gpu.memory
                    operator: Gt
                    values:
                      - {{ (include "steelyard.gpuMebibytes" $spec.resources.gpu_memory_gb) | toJson }}
{{- end }}
{{- if (eq $spec.market.prefer "spot") }}
          preferredDuringSchedulingIgnoredDuringExecution:
            - weight: 100
              preference:
                matchExpressions:
                  - key: karpenter.sh/capacity-type
                    operator: In
                    values:
                      - spot
            - weight: 100
              preference:
                matchExpressions:
                  - key: eks.amazonaws.com/capacityType
                    operator: In
                    values:
                      - SPOT
            - weight: 100
              preference:
                matchExpressions:
                  - key: cloud.google.com/gke-spot
                    operator: In
                    values:
                      - "true"
{{- end }}
{{- end }}
{{- if $spec.resources.gpu }}
      tolerations:
        - key: nvidia.com/gpu
          operator: Exists
          effect: NoSchedule
{{- end }}
      containers:
        - name: train
          image: {{ $spec.image | toJson }}
          command:
            - steelyard
            - train
          workingDir: /scratch
          env:
            - name: HOME
              value: /scratch
            - name: STEELYARD_LAUNCHER
              value: kubernetes
            - name: STEELYARD_RUN_ID
              value: {{ .name | toJson }}
            - name: STEELYARD_SPEC
              value: {{ $spec | toJson | toJson }}
            - name: STEELYARD_STORE
              value: {{ .store | toJson }}
            - name: TMPDIR
              value: /tmp
            - name: STEELYARD_JOB
              valueFrom:
                fieldRef:
                  fieldPath: "metadata.labels['batch.kubernetes.io/job-name']"
            - name: STEELYARD_POD_UID
              valueFrom:
                fieldRef:
                  fieldPath: metadata.uid
{{- if .secret }}
          envFrom:
            - secretRef:
                name: {{ .secret | toJson }}
{{- end }}
          resources:
            requests:
              cpu: {{ ($spec.resources.cpu | int | toString) | toJson }}
              memory: {{ (include "steelyard.mebibytes" $spec.resources.memory_gb) | toJson }}
{{- if $spec.resources.disk_gb }}
              ephemeral-storage: {{ (include "steelyard.mebibytes" $spec.resources.disk_gb) | toJson }}
{{- end }}
{{- if $spec.resources.gpu }}
              nvidia.com/gpu: {{ ($spec.resources.gpu | int | toString) | toJson }}
{{- end }}
            limits:
              cpu: {{ ($spec.resources.cpu | int | toString) | toJson }}
              memory: {{ (include "steelyard.mebibytes" $spec.resources.memory_gb) | toJson }}
{{- if $spec.resources.disk_gb }}
              ephemeral-storage: {{ (include "steelyard.mebibytes" $spec.resources.disk_gb) | toJson }}
{{- end }}
{{- if $spec.resources.gpu }}
              nvidia.com/gpu: {{ ($spec.resources.gpu | int | toString) | toJson }}
{{- end }}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities:
              drop:
                - ALL
          volumeMounts:
            - name: shm
              mountPath: /dev/shm
            - name: scratch
              mountPath: /scratch
            - name: tmp
              mountPath: /tmp
      volumes:
        - name: shm
          emptyDir:
            medium: Memory
            sizeLimit: {{ (include "steelyard.mebibytes" $spec.resources.shm_gb) | toJson }}
        - name: scratch
{{- if $spec.resources.disk_gb }}
          emptyDir:
            sizeLimit: {{ (include "steelyard.mebibytes" $spec.resources.disk_gb) | toJson }}
{{- else }}
          emptyDir: {}
{{- end }}
        - name: tmp
          emptyDir: {}
  ttlSecondsAfterFinished: 604800
{{- end -}}

{{- define "steelyard.cronjob" -}}
{{- $spec := mergeOverwrite (fromJson `{"resources":{"gpu":0,"cpu":2,"memory_gb":4.0,"shm_gb":1.0},"market":{"prefer":"spot"},"limits":{"wall":"1d","attempt":"6h","no_progress_attempts":3}}`) (deepCopy .spec) }}
{{- $wall := include "steelyard.seconds" $spec.limits.wall | int64 }}
{{- $attempt := include "steelyard.seconds" $spec.limits.attempt | int64 }}
{{- $killed := add $attempt (div (add $attempt 9) 10) }}
apiVersion: batch/v1
kind: CronJob
metadata:
  name: steelyard-{{ .name }}
  namespace: {{ .root.Release.Namespace | toJson }}
  labels:
    app.kubernetes.io/name: steelyard-train
    steelyard/job: {{ $spec.name | toJson }}
    steelyard/schedule: {{ .name | toJson }}
spec:
  schedule: {{ $spec.schedule.cron | toJson }}
  timeZone: {{ (default "UTC" $spec.schedule.timezone) | toJson }}
  concurrencyPolicy: Forbid
  startingDeadlineSeconds: 600
  successfulJobsHistoryLimit: 3
  failedJobsHistoryLimit: 3
  jobTemplate:
    metadata:
      labels:
        app.kubernetes.io/name: steelyard-train
        steelyard/job: {{ $spec.name | toJson }}
        steelyard/schedule: {{ .name | toJson }}
    spec:
      backoffLimit: 9
      activeDeadlineSeconds: {{ $wall }}
      podFailurePolicy:
        rules:
          - action: Ignore
            onPodConditions:
              - type: DisruptionTarget
                status: "True"
          - action: FailJob
            onExitCodes:
              containerName: train
              operator: In
              values:
                - 64
                - 65
                - 66
                - 70
                - 73
          - action: Count
            onExitCodes:
              containerName: train
              operator: NotIn
              values:
                - 64
                - 65
                - 66
                - 70
                - 73
      template:
        metadata:
          labels:
            app.kubernetes.io/name: steelyard-train
            steelyard/job: {{ $spec.name | toJson }}
            steelyard/schedule: {{ .name | toJson }}
        spec:
          restartPolicy: Never
          activeDeadlineSeconds: {{ $killed }}
          terminationGracePeriodSeconds: 110
          automountServiceAccountToken: false
          enableServiceLinks: false
          securityContext:
            runAsNonRoot: true
            runAsUser: 65532
            runAsGroup: 65532
            fsGroup: 65532
            seccompProfile:
              type: RuntimeDefault
{{- if .serviceAccount }}
          serviceAccountName: {{ .serviceAccount | toJson }}
{{- end }}
{{- if or $spec.resources.gpu_memory_gb (eq $spec.market.prefer "spot") }}
          affinity:
            nodeAffinity:
{{- if $spec.resources.gpu_memory_gb }}
              requiredDuringSchedulingIgnoredDuringExecution:
                nodeSelectorTerms:
                  - matchExpressions:
                      - key: nvidia.com/gpu.memory
                        operator: Gt
                        values:
                          - {{ (include "steelyard.gpuMebibytes" $spec.resources.gpu_memory_gb) | toJson }}
{{- end }}
{{- if (eq $spec.market.prefer "spot") }}
              preferredDuringSchedulingIgnoredDuringExecution:
                - weight: 100
                  preference:
                    matchExpressions:
                      - key: karpenter.sh/capacity-type
                        operator: In
                        values:
                          - spot
                - weight: 100
                  preference:
                    matchExpressions:
                      - key: eks.amazonaws.com/capacityType
                        operator: In
                        values:
                          - SPOT
                - weight: 100
                  preference:
                    matchExpressions:
                      - key: cloud.google.com/gke-spot
                        operator: In
                        values:
                          - "true"
{{- end }}
{{- end }}
{{- if $spec.resources.gpu }}
          tolerations:
            - key: nvidia.com/gpu
              operator: Exists
              effect: NoSchedule
{{- end }}
          containers:
            - name: train
              image: {{ $spec.image | toJson }}
              command:
                - steelyard
                - train
              workingDir: /scratch
              env:
                - name: HOME
                  value: /scratch
                - name: STEELYARD_LAUNCHER
                  value: kubernetes
                - name: STEELYARD_SCHEDULE
                  value: {{ .name | toJson }}
                - name: STEELYARD_SPEC
                  value: {{ $spec | toJson | toJson }}
                - name: STEELYARD_STORE
                  value: {{ .store | toJson }}
                - name: TMPDIR
                  value: /tmp
                - name: STEELYARD_JOB
                  valueFrom:
                    fieldRef:
                      fieldPath: "metadata.labels['batch.kubernetes.io/job-name']"
                - name: STEELYARD_POD_UID
                  valueFrom:
                    fieldRef:
                      fieldPath: metadata.uid
{{- if .secret }}
              envFrom:
                - secretRef:
                    name: {{ .secret | toJson }}
{{- end }}
              resources:
                requests:
                  cpu: {{ ($spec.resources.cpu | int | toString) | toJson }}
                  memory: {{ (include "steelyard.mebibytes" $spec.resources.memory_gb) | toJson }}
{{- if $spec.resources.disk_gb }}
                  ephemeral-storage: {{ (include "steelyard.mebibytes" $spec.resources.disk_gb) | toJson }}
{{- end }}
{{- if $spec.resources.gpu }}
                  nvidia.com/gpu: {{ ($spec.resources.gpu | int | toString) | toJson }}
{{- end }}
                limits:
                  cpu: {{ ($spec.resources.cpu | int | toString) | toJson }}
                  memory: {{ (include "steelyard.mebibytes" $spec.resources.memory_gb) | toJson }}
{{- if $spec.resources.disk_gb }}
                  ephemeral-storage: {{ (include "steelyard.mebibytes" $spec.resources.disk_gb) | toJson }}
{{- end }}
{{- if $spec.resources.gpu }}
                  nvidia.com/gpu: {{ ($spec.resources.gpu | int | toString) | toJson }}
{{- end }}
              securityContext:
                allowPrivilegeEscalation: false
                readOnlyRootFilesystem: true
                capabilities:
                  drop:
                    - ALL
              volumeMounts:
                - name: shm
                  mountPath: /dev/shm
                - name: scratch
                  mountPath: /scratch
                - name: tmp
                  mountPath: /tmp
          volumes:
            - name: shm
              emptyDir:
                medium: Memory
                sizeLimit: {{ (include "steelyard.mebibytes" $spec.resources.shm_gb) | toJson }}
            - name: scratch
{{- if $spec.resources.disk_gb }}
              emptyDir:
                sizeLimit: {{ (include "steelyard.mebibytes" $spec.resources.disk_gb) | toJson }}
{{- else }}
              emptyDir: {}
{{- end }}
            - name: tmp
              emptyDir: {}
{{- end -}}
