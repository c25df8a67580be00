// SPDX-License-Identifier: Apache-2.0
// The one function that liboqs-python 0.16 asks for when it is loaded and that liboqs 0.13 does not have yet.
#include <oqs/oqs.h>

OQS_API bool OQS_SIG_supports_ctx_str(const char *method_name) {
	OQS_SIG *sig = OQS_SIG_new(method_name);
	bool supported = sig != NULL && sig->sig_with_ctx_support;
	OQS_SIG_free(sig);
	return supported;
}
