"""What the client reads of the registry is what the API tells."""

import pytest
from pydantic import BaseModel

from maas.client.registry import RemoteAlias, RemoteFile, RemoteModel, RemoteMove, RemoteVersion
from maas.model.interface.alias_schemas import AliasMoveRead, AliasRead
from maas.model.interface.schemas import FileRead, ModelSummaryRead, VersionRead


@pytest.mark.parametrize(
    ("read", "told"),
    [
        (RemoteModel, ModelSummaryRead),
        (RemoteVersion, VersionRead),
        (RemoteFile, FileRead),
        (RemoteAlias, AliasRead),
        (RemoteMove, AliasMoveRead),
    ],
)
def test_each_field_is_one_of_the_apis(read: type[BaseModel], told: type[BaseModel]) -> None:
    assert read.model_fields.keys() <= told.model_fields.keys()
