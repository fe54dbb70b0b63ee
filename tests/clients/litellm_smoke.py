"""litellm as a client of `/v1`: `python -m tests.clients.litellm_smoke CHAT... VECTORS`."""

import os
import sys
from typing import Any

import litellm

from tests.clients.loopback import stay_here

QUESTION = [{"role": "user", "content": "What is the weather in Paris?"}]


def _way() -> dict[str, Any]:
    return {
        "api_base": os.environ["OPENAI_BASE_URL"],
        "api_key": os.environ["OPENAI_API_KEY"],
        "num_retries": 0,
    }


def speak(name: str) -> None:
    model = f"openai/{name}"
    told: Any = litellm.completion(model=model, messages=QUESTION, max_tokens=64, **_way())
    assert told.choices[0].message.content
    assert told.usage.completion_tokens > 0

    chunks: Any = litellm.completion(
        model=model, messages=QUESTION, max_tokens=64, stream=True, **_way()
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def embed(name: str) -> None:
    told: Any = litellm.embedding(model=f"openai/{name}", input=["a river", "a mill"], **_way())
    first, second = (each["embedding"] for each in told.data)
    assert len(first) == len(second) > 1


if __name__ == "__main__":
    stay_here()
    *chats, embedder = sys.argv[1:]
    for each in chats:
        speak(each)
    embed(embedder)
