{{/* SPDX-License-Identifier: Apache-2.0 */}}
{{/* What every pod of this chart has in common: service and jobs work on the same stores as the same user. */}}

{{- define "pqreg.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: { type: RuntimeDefault }
{{- end -}}

{{- define "pqreg.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: { drop: [ALL] }
{{- end -}}

{{- define "pqreg.image" -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- end -}}

{{- define "pqreg.environment" -}}
- name: POD_IP
  valueFrom: { fieldRef: { fieldPath: status.podIP } }
- name: PQREG_HOSTS
  value: {{ printf "%s,$(POD_IP)" (join "," .Values.hosts) | quote }}
- name: PQREG_DATABASE_FILE
  value: /run/pqreg/database
- name: AWS_SHARED_CREDENTIALS_FILE
  value: /run/pqreg/s3
- name: PQREG_LOG_KEY
  value: /run/pqreg/log.key
{{- if .Values.log.witnessesPolicy }}
- name: PQREG_LOG_WITNESSES
  value: /etc/pqreg/witnesses.policy
{{- end }}
- name: PQREG_STORAGE
  value: {{ .Values.storage.url | quote }}
- name: PQREG_S3_ENDPOINT
  value: {{ .Values.storage.endpoint | quote }}
{{- with .Values.storage.publicEndpoint }}
- name: PQREG_S3_PUBLIC_ENDPOINT
  value: {{ . | quote }}
{{- end }}
- name: PQREG_S3_REGION
  value: {{ .Values.storage.region | quote }}
- name: PQREG_S3_ADDRESSING
  value: {{ .Values.storage.addressing | quote }}
- name: PQREG_S3_ENCRYPTION
  value: {{ .Values.storage.encryption | quote }}
- name: PQREG_S3_RETENTION_DAYS
  value: {{ .Values.storage.retentionDays | quote }}
- name: PQREG_S3_RETENTION_MODE
  value: {{ .Values.storage.retentionMode | quote }}
- name: PQREG_PUBLIC_READ
  value: {{ .Values.settings.publicRead | quote }}
- name: PQREG_PRIVATE_LOG
  value: {{ .Values.settings.privateLog | quote }}
- name: PQREG_LOG_LEVEL
  value: {{ .Values.settings.logLevel | quote }}
{{- range $name, $value := .Values.settings.extra }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end -}}

{{/* A mounted secret belongs to root and can be read by the group. The service wants its keys to belong to its own user
     and to be readable by nobody else, so they are copied into memory that ends with the pod. */}}
{{- define "pqreg.secretsInit" -}}
- name: secrets
  image: {{ include "pqreg.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  command:
    - /bin/sh
    - -euc
    - |
      install -m 0400 /secrets/database/{{ .Values.database.key }} /run/pqreg/database
      install -m 0400 /secrets/s3/{{ .Values.storage.key }} /run/pqreg/s3
      install -m 0400 /secrets/log/{{ .Values.log.key }} /run/pqreg/log.key
      {{- if .Values.adminToken.existingSecret }}
      install -m 0600 /secrets/admin/{{ .Values.adminToken.key }} /var/lib/pqreg/admin.token
      {{- end }}
  securityContext:
    {{- include "pqreg.containerSecurity" . | nindent 4 }}
  resources:
    requests: { cpu: 10m, memory: 16Mi }
    limits: { memory: 64Mi }
  volumeMounts:
    - { name: database, mountPath: /secrets/database, readOnly: true }
    - { name: s3, mountPath: /secrets/s3, readOnly: true }
    - { name: log, mountPath: /secrets/log, readOnly: true }
    {{- if .Values.adminToken.existingSecret }}
    - { name: admin, mountPath: /secrets/admin, readOnly: true }
    {{- end }}
    - { name: keys, mountPath: /run/pqreg }
    - { name: data, mountPath: /var/lib/pqreg }
{{- end -}}

{{- define "pqreg.mounts" -}}
- { name: keys, mountPath: /run/pqreg, readOnly: true }
- { name: data, mountPath: /var/lib/pqreg }
- { name: tmp, mountPath: /tmp }
{{- if .Values.log.witnessesPolicy }}
- { name: policy, mountPath: /etc/pqreg/witnesses.policy, subPath: witnesses.policy, readOnly: true }
{{- end }}
{{- if .Values.database.caConfigMap }}
- { name: database-ca, mountPath: /etc/pqreg/database-ca, readOnly: true }
{{- end }}
{{- end -}}

{{- define "pqreg.volumes" -}}
- name: keys
  emptyDir: { medium: Memory, sizeLimit: 1Mi }
# Lock, and the administrator's token that is adopted. Nothing in it outlives the pod.
- name: data
  emptyDir: { sizeLimit: 256Mi }
- name: tmp
  emptyDir: { sizeLimit: 256Mi }
- name: database
  secret: { secretName: {{ required "database.existingSecret" .Values.database.existingSecret }}, defaultMode: 0440 }
- name: s3
  secret: { secretName: {{ required "storage.existingSecret" .Values.storage.existingSecret }}, defaultMode: 0440 }
- name: log
  secret: { secretName: {{ required "log.existingSecret" .Values.log.existingSecret }}, defaultMode: 0440 }
{{- if .Values.adminToken.existingSecret }}
- name: admin
  secret: { secretName: {{ .Values.adminToken.existingSecret }}, defaultMode: 0440 }
{{- end }}
{{- if .Values.log.witnessesPolicy }}
- name: policy
  configMap: { name: {{ include "pqreg.name" . }}-policy }
{{- end }}
{{- if .Values.database.caConfigMap }}
- name: database-ca
  configMap: { name: {{ .Values.database.caConfigMap }} }
{{- end }}
{{- end -}}
