"""Protein structures: read from files (`read`, `atoms`), made up (`synthetic`), written (`write`)."""

from iga.structure.read import (
    BASE_THICKNESS,
    Structure,
    StructureError,
    find_structures,
    read_structure,
    read_structures,
    record,
)

__all__ = [
    "BASE_THICKNESS",
    "Structure",
    "StructureError",
    "find_structures",
    "read_structure",
    "read_structures",
    "record",
]
