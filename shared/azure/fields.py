"""Reading the fields of Azure's objects: any of them may be null, missing or odd."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TypedDict

from shared.azure.replies import Body
from shared.plain import plain

# Before it there was no Azure: a time that is not known is sent as the year 1.
_FIRST_YEAR = 2008

_GALLERY_IMAGE = re.compile(r".*/galleries/([^/]+)/images/([^/]+)/versions/([^/]+)", re.IGNORECASE)
# The public name of a community gallery is the gallery's own and a GUID.
_COMMUNITY_IMAGE = re.compile(
    r"/communitygalleries/([^/]+?)(?:-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})?/images/([^/]+)/versions/([^/]+)",
    re.IGNORECASE,
)


class Shown(TypedDict):
    """What a machine itself shows of a node."""

    name: str
    os: str
    power: str
    provisioning: str
    node_image_version: str | None
    created: datetime | None


def shown(vm: Body, name: str, system: str, image: str | None) -> Shown:
    """What an instance or a VM shows; the last three are for what it does not say."""
    properties = under(vm, "properties")
    storage = under(properties, "storageProfile")
    return {
        "name": text_of(under(properties, "osProfile").get("computerName")) or name,
        "os": text_of(under(storage, "osDisk").get("osType")) or system,
        "power": power_of(vm),
        "provisioning": text_of(properties.get("provisioningState")),
        "node_image_version": _image_version(under(storage, "imageReference")) or image,
        "created": moment(properties.get("timeCreated")),
    }


def power_of(vm: Body) -> str:
    """The power state in a machine's instance view without its prefix; empty where there is none."""
    statuses = under(under(vm, "properties"), "instanceView").get("statuses")
    codes = [
        text_of(status.get("code"))
        for status in (statuses if isinstance(statuses, list) else [])
        if isinstance(status, Mapping)
    ]
    return next((code[len("PowerState/") :] for code in codes if code.lower().startswith("powerstate/")), "")


def _image_version(reference: Body) -> str | None:
    """A machine's own image as AKS writes image versions (gallery-image-version): its pool may be newer already."""
    found = _GALLERY_IMAGE.fullmatch(text_of(reference.get("id"))) or _COMMUNITY_IMAGE.fullmatch(
        text_of(reference.get("communityGalleryImageId"))
    )
    return "-".join(found.groups()) if found is not None else None


def moment(value: object) -> datetime | None:
    """A time as Azure writes it (UTC where it names no zone), or None where it is none or stands for "not known"."""
    try:
        time = datetime.fromisoformat(value) if isinstance(value, str) else None
        if time is None or time.year < _FIRST_YEAR:
            return None
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def text_of(value: object) -> str:
    """A text, number or truth value of Azure's as text that can be shown; empty for anything else."""
    return plain(str(value)) if isinstance(value, str | int | float) else ""


def under(body: Body, name: str) -> Body:
    """The object in a field; empty where there is none."""
    value = body.get(name)
    return value if isinstance(value, Mapping) else {}


def lowered(body: Body) -> Body:
    """The same with names in lower case: those of tags and add-ons are case-insensitive."""
    return {str(name).lower(): value for name, value in body.items()}
