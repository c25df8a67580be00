# SPDX-License-Identifier: Apache-2.0
"""Bundles: a release with everything a site without a network needs to verify it, on as many media as it takes.

``collect`` gathers from a registry what a bundle holds, all of it verified; ``layout`` cuts it into volumes; ``export``
writes them; ``volume`` reads one; ``documents`` judges what they carry, by the trust file of whoever reads; ``bring``
puts the release on disk. The form is docs/spec/bundle.md.
"""
