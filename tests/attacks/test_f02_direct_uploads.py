# SPDX-License-Identifier: Apache-2.0
"""F2 on the way to storage: the URLs parts are sent to are credentials, and stand in no message, traceback or log."""

from __future__ import annotations

import logging
import os
import traceback

import pytest

from pq_registry.errors import PqregError
from tests.attacks.test_f02_secrets_in_urls import FAILURES
from tests.direct_site import PART, direct_site, spoil
from tests.fake_registry import Handler


@pytest.mark.parametrize("failure", sorted(set(FAILURES) - {"other length"}))  # that is no failure of a PUT
def test_f02_no_failure_of_a_part_tells_its_url(
    failure: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)

    def rule(handler: Handler) -> bool:
        handler.rfile.read(int(handler.headers["Content-Length"]))
        return bool(FAILURES[failure](handler))

    with direct_site() as site:
        spoil(site.storage, "PUT /bucket/", rule)
        with pytest.raises(PqregError) as caught:
            site.push(os.urandom(PART + 1))
        error = caught.value
        said = f"{error} {error.hint} {error.__dict__} " + "".join(traceback.format_exception(error))
        assert "AKIA" not in said
        assert "0123456789abcdef" not in said
        assert all("referer" not in headers for headers in site.strangers())
    assert "AKIA" not in caplog.text + "".join(capfd.readouterr())


def test_f02_storage_that_is_gone_does_not_tell_the_url() -> None:
    with direct_site() as site:
        site.storage.url = "http://127.0.0.1:1"
        with pytest.raises(PqregError) as caught:
            site.push(os.urandom(PART + 1))
    said = f"{caught.value} {caught.value.hint} " + "".join(traceback.format_exception(caught.value))
    assert "AKIA" not in said
    assert "http://127.0.0.1:1" in said  # but it does tell which storage that is
