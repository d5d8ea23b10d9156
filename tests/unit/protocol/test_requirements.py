from __future__ import annotations

import pytest

from manta.protocol.requirements import digest_of, flaw_of, lines_of, named

HASH = "--hash=sha256:" + "0" * 64


def test_lines_are_those_of_a_requirements_file() -> None:
    text = "# why\nhumanize>=4  # as of 4\n\n--require-hashes\n"
    text += f"tabulate==0.9 \\\n    {HASH} \\\r\n  {HASH}\n"
    expected = ("humanize>=4", "--require-hashes", f"tabulate==0.9 {HASH} {HASH}")
    assert lines_of(text) == expected
    assert not any(map(flaw_of, expected))


@pytest.mark.parametrize(
    "line",
    [
        "-r other.txt",
        "-e .",
        "--index-url https://elsewhere.example/simple",
        "--extra-index-url=https://elsewhere.example",
        "--find-links /srv",
        "--trusted-host elsewhere.example",
        "https://elsewhere.example/a-1.0-py3-none-any.whl",
        "a @ https://elsewhere.example/a-1.0-py3-none-any.whl",
        "a @ file:///etc/passwd",
        "git+https://elsewhere.example/a.git",
        "./a",
        "../a",
        "/srv/a",
        "a --index-url https://elsewhere.example",
        "a --config-settings=x=y",
        "a\nb",
        f"a\n{HASH}",
        "a===1\\",
        "a===${PIP_INDEX_URL}",
        "a; os_name != '${UV_DEFAULT_INDEX}'",
        "a===1#2",
        "a===\x1b[31m",
        "a===\u202e1",
    ],
)
def test_what_leads_elsewhere_than_to_the_node_s_index_is_refused(line: str) -> None:
    flaw = flaw_of(line)
    assert flaw
    assert "name packages" in flaw
    assert not flaw.endswith(".")


@pytest.mark.parametrize("line", ["a --hash=md5:0", "a --hash=sha256:0", "a --hash=sha256:../x"])
def test_hashes_are_of_a_kind_that_is_safe(line: str) -> None:
    assert "is no hash" in flaw_of(line)


def test_a_line_has_a_bound() -> None:
    assert "more than 16,384 characters" in flaw_of("a" * 20_000)


def test_people_are_shown_names_and_versions() -> None:
    lines = ["--require-hashes", f"tabulate==0.9 {HASH}", "humanize>=4; python_version > '3'"]
    assert named(lines) == ["tabulate==0.9", "humanize>=4"]


def test_what_was_stored_before_it_was_looked_at_is_quoted() -> None:
    assert named(["-e .", "a\x1b[31m"]) == ["'-e .'", "'a\\x1b[31m'"]


def test_other_lines_have_another_digest() -> None:
    one, other = digest_of(["a", "b"]), digest_of(["a b"])
    assert one != other
    assert len(one) == 12
