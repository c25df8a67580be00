# SPDX-License-Identifier: Apache-2.0
"""Repositories as the Hugging Face Hub's protocol sees them: revisions of files, and drafts that nobody has signed.

``model`` has the words of that protocol as values. ``revisions`` finds what a revision's name means and reads it;
``drafts`` changes what is not signed yet; ``intake`` takes in files of which only the SHA-256 is known.
"""
