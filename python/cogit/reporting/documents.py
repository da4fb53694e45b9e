"""The two documents made from the classes: the JSON schema and the list of fields.

``python -m cogit.reporting.documents`` in a checkout writes both again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cogit.artefact import write_bytes
from cogit.reporting.schema import EvaluationReport

SCHEMA_FILE = Path(__file__).parent.parent / "data" / "evaluation.schema.json"
FIELDS_FILE = Path("docs") / "report.md"
START = "<!-- made by python -m cogit.reporting.documents -->"


def schema() -> dict[str, Any]:
    """The format as JSON Schema, draft 2020-12."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **EvaluationReport.model_json_schema(),
    }


def schema_bytes() -> bytes:
    return json.dumps(schema(), indent=2, ensure_ascii=False).encode() + b"\n"


def fields_markdown() -> str:
    """Every object of the format with its fields: type, meaning, whether it must be given."""
    whole = schema()
    parts = [_section("the report", whole, whole["description"])]
    parts += [_section(name, part, part["description"]) for name, part in _objects(whole).items()]
    return "\n".join(parts)


def _objects(whole: Mapping[str, Any]) -> dict[str, Any]:
    found = whole["$defs"]
    return {name: part for name, part in found.items() if part.get("type") == "object"}


def _section(name: str, part: Mapping[str, Any], text: str) -> str:
    rows = [f"### {name}", "", " ".join(text.split()), "", "| field | type | meaning |"]
    rows.append("| --- | --- | --- |")
    needed = set(part.get("required", ()))
    for field, facts in part["properties"].items():
        kind = _kind(facts) + ("" if field in needed else ", optional")
        meaning = facts.get("description", "").replace("|", "\\|")
        rows.append(f"| `{field}` | {kind} | {meaning} |")
    return "\n".join([*rows, ""])


def _kind(facts: Mapping[str, Any]) -> str:
    """A type in words."""
    if "$ref" in facts:
        return str(facts["$ref"]).rpartition("/")[2].replace("JsonValue", "any JSON")
    if "anyOf" in facts:
        return " or ".join(_kind(part) for part in facts["anyOf"])
    if "const" in facts:
        return f"`{json.dumps(facts['const'])}`"
    if "enum" in facts:
        return " or ".join(f"`{json.dumps(value)}`" for value in facts["enum"])
    if facts.get("type") == "array":
        return f"list of {_kind(facts['items'])}"
    if facts.get("type") == "object":
        keys = facts.get("propertyNames", {}).get("enum")
        named = f" by {', '.join(f'`{key}`' for key in keys)}" if keys else " by name"
        inner = facts.get("additionalProperties")
        return f"{_kind(inner) if isinstance(inner, dict) and inner else 'any JSON'}{named}"
    span = f" in [{facts['minimum']:g}, {facts['maximum']:g}]" if "maximum" in facts else ""
    above = f" ≥ {facts['minimum']:g}" if "minimum" in facts and not span else ""
    return f"{facts.get('type', 'any JSON')}{span}{above}"


def main() -> None:
    """Write both files, the second below its introduction."""
    write_bytes(SCHEMA_FILE, schema_bytes())
    text = FIELDS_FILE.read_text(encoding="utf-8")
    write_bytes(FIELDS_FILE, f"{text.partition(START)[0]}{START}\n\n{fields_markdown()}".encode())


if __name__ == "__main__":
    main()
