{{/* SPDX-License-Identifier: Apache-2.0 */}}
{{- define "pqreg.name" -}}
{{- printf "%s" .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "pqreg.selector" -}}
app.kubernetes.io/name: pq-registry
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "pqreg.labels" -}}
{{ include "pqreg.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}
