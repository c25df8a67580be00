# SPDX-License-Identifier: Apache-2.0
"""A stand-in for vLLM 0.33: what of it a load format meets, with the same names, signatures and order of calls.

It shows that our plug-in does its part where vLLM would call it. It cannot show that vLLM itself behaves so.
"""
