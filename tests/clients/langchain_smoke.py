"""langchain-openai against `/v1`: `python -m tests.clients.langchain_smoke CHAT... VECTORS`."""

import sys
from typing import Any

from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel

from tests.clients.loopback import stay_here


class City(BaseModel):
    """A city."""

    name: str
    country: str


@tool
def get_weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"sunny in {city}"


def speak(name: str) -> None:
    options: dict[str, Any] = {"timeout": 60, "max_completion_tokens": 128}
    chat = ChatOpenAI(model_name=name, max_retries=0, **options)

    told = chat.invoke("What is the weather in Paris?")
    assert told.content
    assert told.usage_metadata is not None
    assert told.usage_metadata["output_tokens"] > 0

    streamed = list(chat.stream("What is the weather in Paris?", stream_usage=True))
    assert "".join(str(chunk.content) for chunk in streamed)
    assert any(chunk.usage_metadata for chunk in streamed)

    called = chat.bind_tools([get_weather], tool_choice="required").invoke("How is it in Paris?")
    (call,) = called.tool_calls
    assert call["name"] == "get_weather"
    assert isinstance(call["args"]["city"], str)

    city = chat.with_structured_output(City).invoke("Name a city and its country.")
    assert isinstance(city, City)


def embed(name: str) -> None:
    vectors = OpenAIEmbeddings(model=name, check_embedding_ctx_length=False, max_retries=0)

    first, second = vectors.embed_documents(["a river", "a mill"])
    assert len(first) == len(second) > 1
    assert len(vectors.embed_query("a river")) == len(first)


if __name__ == "__main__":
    stay_here()
    *chats, embedder = sys.argv[1:]
    for each in chats:
        speak(each)
    embed(embedder)
