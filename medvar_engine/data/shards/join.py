"""Joins folders of shards to one table and one manifest, for appending and merging."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa

from medvar_engine.data.identity.pseudonyms import Pseudonyms
from medvar_engine.data.identity.same_patient import Names, remarks_on_same
from medvar_engine.data.shards.image_file import mask_name, shard_name
from medvar_engine.data.shards.patients import check_ids, patient_ids
from medvar_engine.data.shards.shard_folder import ShardFolder
from medvar_engine.data.shards.shard_manifest import Manifest
from medvar_engine.data.shards.slice_table import plain_batches, write_table
from medvar_engine.data.shards.tally import counts, sources, strata_of, tally
from medvar_engine.data.split import SplitRule, remarks_on
from medvar_engine.errors import MedvarError
from medvar_engine.storage import share_file


def check_fit(parts: Sequence[ShardFolder], *, any_recipe: bool, pseudonyms: Pseudonyms | None = None) -> list[str]:
    """Remarks about different recipes. Raises `MedvarError` when folders cannot be joined, or share slices."""
    first = parts[0]
    remarks = []
    for number, other in enumerate(parts[1:], 1):
        if other.manifest.size != first.manifest.size:
            raise MedvarError(
                f"{first.path} has slices of {first.manifest.size} pixels per side, but {other.path} of "
                f"{other.manifest.size}. Prepare one of them again with the size of the other."
            )
        if other.manifest.structures != first.manifest.structures:
            raise MedvarError(
                f"{first.path} has masks of {_named(first.manifest)}, but {other.path} of {_named(other.manifest)}. "
                "Prepare one of them again with the structures of the other."
            )
        before = [one for part in parts[:number] for one in patient_ids(part.manifest)]
        check_ids(before, patient_ids(other.manifest), f"{first.path} and {other.path}", pseudonyms)
        if differing := _differing(first.manifest.recipe, other.manifest.recipe):
            if not any_recipe:
                raise MedvarError(
                    f"{first.path} and {other.path} were prepared by different recipes (different "
                    f"{', '.join(differing)}), "
                    "so their slices may not be comparable. Prepare one of them again, or allow any recipe."
                )
            remarks.append(f"slices of {other.path.name} were prepared by another recipe ({', '.join(differing)})")
    owner: dict[str, Path] = {}
    for part in parts:
        for shard in part.manifest.shards:
            if (path := owner.setdefault(shard["sha256"], part.path)) != part.path:
                raise MedvarError(f"{part.path} has slices that {path} has already ({shard['file']}).")
    if len({part.path.resolve() for part in parts}) < len(parts):
        raise MedvarError("A folder is given twice, so its slices would be duplicated.")
    return remarks


def join(
    target: Path,
    table: str,
    parts: Sequence[ShardFolder],
    split: Mapping[str, str],
    remarks: Sequence[str],
    marks: Mapping[str, list[str]],
    one_patient: Sequence[Names],
) -> Manifest:
    """Put the shards of all parts and the file ``table`` into ``target``; the returned manifest is not written yet."""
    shards: list[dict[str, Any]] = []
    for part in parts:
        for shard in part.manifest.shards:
            name, number = shard_name(len(shards)), len(shards)
            entry = {**shard, "file": name}
            if part.path != target:
                share_file(part.path / shard["file"], target / name)
            if masks := shard.get("masks"):
                entry["masks"] = {**masks, "file": mask_name(number)}
                if part.path != target:
                    share_file(part.path / masks["file"], target / mask_name(number))
            shards.append(entry)

    def batches() -> Iterator[pa.RecordBatch]:
        first_shards = accumulate((len(part.manifest.shards) for part in parts), initial=0)
        for part, first_shard in zip(parts, first_shards, strict=False):
            yield from plain_batches(part.table, first_shard)

    groups = [group for part in parts for group in tally(part.table)]
    first = parts[0].manifest
    rule = SplitRule.of(first.recipe)
    return Manifest(
        size=first.size,
        recipe=first.recipe,
        counts=counts(groups, split),
        sources=sources(groups),
        refused=[refusal for part in parts for refusal in part.manifest.refused],
        split=dict(split),
        given_split=sorted(
            {name for part in parts for name in part.manifest.given_split if split[name] == part.manifest.split[name]}
        ),
        patient_ids=sorted({one for part in parts for one in patient_ids(part.manifest)}),
        marks=dict(marks),
        one_patient=[list(group) for group in one_patient],
        remarks=list(
            dict.fromkeys(
                [
                    *(remark for part in parts for remark in lasting_remarks(part)),
                    *remarks,
                    *remarks_on_same(one_patient),
                    *remarks_on(strata_of(groups, rule.strata), split, rule.test_fraction),
                ]
            )
        ),
        shards=shards,
        table=write_table(target / table, batches),
        structures=list(first.structures),
    )


def lasting_remarks(part: ShardFolder) -> list[str]:
    """The remarks of a folder without those about its split, which are computed again after a change."""
    rule = SplitRule.of(part.manifest.recipe)
    passing = remarks_on(strata_of(tally(part.table), rule.strata), part.manifest.split, rule.test_fraction)
    passing += remarks_on_same([tuple(group) for group in part.manifest.one_patient])
    return [remark for remark in part.manifest.remarks if remark not in passing]


def _differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """The parameters in which two recipes differ, apart from the split of patients."""
    names = {*first, *second} - set(SplitRule().to_dict())
    return sorted(name for name in names if first.get(name) != second.get(name))


def _named(manifest: Manifest) -> str:
    """The structures of a folder's masks as text."""
    names = [one.name for one in manifest.masks]
    return ", ".join(names[:10]) + (", …" if len(names) > 10 else "") if names else "no structures"
