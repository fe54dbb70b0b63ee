"""What files say of themselves, as routes show it."""

from pydantic import ConfigDict, Field
from pydantic.config import JsonValue

from maas.model.domain.facts import Format
from maas.shared.interface.types import ReadModel

OF_FILE = "What the file says of itself; null if it is of no kind that is read."
OF_VERSION = (
    "What the largest set of weights says, shards of one file being one set; what it does not say, "
    "the nearest `config.json` does. Null without weights."
)
FACTS_EXAMPLE: dict[str, JsonValue] = {
    "format": "safetensors",
    "architecture": "llama",
    "parameters": 2184219136,
    "dtype": "BF16",
    "quantisation": None,
    "context_length": 4096,
    "tensor_count": 291,
}


class FactsRead(ReadModel):
    """Null is what is not said, or was too much to be read."""

    model_config = ConfigDict(json_schema_extra={"examples": [FACTS_EXAMPLE]})

    format: Format = Field(description="How the file is laid out; `config` is a `config.json`.")
    architecture: str | None = Field(description="As in `llama`: GGUF's word, or the model type.")
    parameters: int | None = Field(description="Elements of all tensors.")
    dtype: str | None = Field(description="The type most of them have, as in `BF16` or `Q4_K`.")
    quantisation: str | None = Field(description="As in `Q4_K_M`, `gptq` or `INT8`.")
    context_length: int | None = Field(description="Tokens.")
    tensor_count: int | None
