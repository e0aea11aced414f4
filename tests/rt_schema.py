"""The specification's own JSON schemas, as an oracle: `problems(document, "config")`."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft4Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

SCHEMAS = Path(__file__).parent / "schemas" / "runtime"


@cache
def validator(name: str) -> Draft4Validator:
    """The schema `name`-schema.json with those it refers to."""

    def read(uri: str) -> Resource[Any]:
        return DRAFT4.create_resource(json.loads((SCHEMAS / uri).read_text()))

    return Draft4Validator(json.loads((SCHEMAS / f"{name}-schema.json").read_text()), registry=Registry(retrieve=read))


def problems(document: Any, name: str) -> list[str]:
    """What the schema has against a document; nothing, if all is well."""
    return [f"{error.json_path}: {error.message}" for error in validator(name).iter_errors(document)]
