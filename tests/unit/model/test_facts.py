"""What files say of their version together, and which reader a file is given to."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maas.model.domain.config import read_config
from maas.model.domain.facts import ArchiveRefusedError, Facts, LyingHeaderError, roll_up, word
from maas.model.domain.file import FilePath
from maas.model.domain.formats import SNIFFED_BYTES, read_facts
from maas.model.domain.reading import read
from tests.factories.weights import fetcher, make_gguf, make_safetensors, make_zip

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "max_position_embeddings": 4096,
    "torch_dtype": "bfloat16",
    "quantization_config": {"quant_method": "gptq"},
}


def weights(parameters: int, **overrides: object) -> Facts:
    values = {"format": "safetensors", "parameters": parameters, "dtype": "F16", "tensor_count": 1}
    return Facts(**{**values, **overrides})  # type: ignore[arg-type]  # stated by the test


def rolled_up(files: dict[str, Facts]) -> Facts | None:
    return roll_up({FilePath(path): facts for path, facts in files.items()})


def facts_of(path: str, content: bytes) -> Facts | None:
    reading = read_facts(
        FilePath(path), len(content), content[:SNIFFED_BYTES], limit_unpacked_bytes=2**30
    )
    return read(reading, fetcher(content))


def config_of(text: object) -> Facts | None:
    content = text if isinstance(text, bytes) else json.dumps(text).encode()
    return read(read_config(len(content)), fetcher(content))


class TestRollUp:
    def test_without_weights_there_is_nothing_to_say(self) -> None:
        assert rolled_up({}) is None
        assert rolled_up({"config.json": Facts(format="config", architecture="llama")}) is None

    def test_shards_are_summed(self) -> None:
        facts = rolled_up(
            {
                "model-00001-of-00002.safetensors": weights(100),
                "model-00002-of-00002.safetensors": weights(50, dtype="F32"),
            }
        )

        assert facts == weights(150, tensor_count=2)

    def test_the_first_shard_alone_may_know_the_architecture(self) -> None:
        facts = rolled_up(
            {
                "m-00001-of-00002.gguf": weights(
                    1, format="gguf", architecture="llama", context_length=8, quantisation="Q4_K_M"
                ),
                "m-00002-of-00002.gguf": weights(9, format="gguf"),
            }
        )

        assert facts is not None
        assert (facts.architecture, facts.context_length) == ("llama", 8)
        assert (facts.quantisation, facts.parameters) == ("Q4_K_M", 10)

    def test_one_model_in_several_forms_is_counted_once(self) -> None:
        facts = rolled_up(
            {
                "model.safetensors": weights(100),
                "model-q4.gguf": weights(101, format="gguf", dtype="Q4_K"),
                "onnx/model.onnx": weights(99, format="onnx"),
            }
        )

        assert facts == weights(101, format="gguf", dtype="Q4_K")

    def test_the_config_beside_the_weights_completes_them(self) -> None:
        facts = rolled_up(
            {
                "config.json": Facts(format="config", architecture="pipeline"),
                "unet/config.json": Facts(format="config", architecture="unet", context_length=77),
                "unet/model.safetensors": weights(100),
                "vae/model.safetensors": weights(10),
            }
        )

        assert facts == weights(100, architecture="unet", context_length=77)

    def test_what_weights_say_themselves_stands(self) -> None:
        facts = rolled_up(
            {
                "a.gguf": weights(1, architecture="gemma3"),
                "config.json": Facts(format="config", architecture="other", dtype="F32"),
            }
        )

        assert facts == weights(1, architecture="gemma3")

    @given(
        st.dictionaries(
            st.sampled_from(["a-00001-of-00002.gguf", "a-00002-of-00002.gguf", "b", "config.json"]),
            st.builds(
                Facts,
                format=st.sampled_from(["gguf", "onnx", "zip", "config"]),
                parameters=st.none() | st.integers(0, 2**63 - 1),
            ),
        )
    )
    def test_whatever_files_say_can_be_kept(self, files: dict[str, Facts]) -> None:
        facts = rolled_up(files)

        assert facts is None or (facts.parameters or 0) < 2**63


class TestConfig:
    def test_tells_what_weights_do_not(self) -> None:
        assert config_of(CONFIG) == Facts(
            format="config",
            architecture="llama",
            dtype="BF16",
            quantisation="gptq",
            context_length=4096,
        )

    def test_looks_where_models_of_several_inputs_keep_it(self) -> None:
        facts = config_of({"model_type": "vlm", "text_config": {"max_position_embeddings": 7}})

        assert facts is not None
        assert facts.context_length == 7

    @pytest.mark.parametrize(
        "text",
        [
            b"",
            b"\xff",
            b"[" * 100_000,
            b"1" * 5_000,
            {},
            [],
            {"model_type": 1},
            {"model_type": "a\u200bb", "architectures": [["x"]], "max_position_embeddings": True},
            {"max_position_embeddings": -1, "n_ctx": 2**63, "torch_dtype": "x" * 101},
            {"quantization_config": [], "text_config": 1},
            b'"' + b"x" * 2**20 + b'"',
        ],
    )
    def test_another_file_of_that_name_says_nothing(self, text: object) -> None:
        assert config_of(text) is None


class TestReader:
    @pytest.mark.parametrize(
        ("path", "content", "expected"),
        [
            ("model.safetensors", make_safetensors(), "safetensors"),
            ("pytorch_model.bin", make_safetensors(), "safetensors"),
            ("MODEL.GGUF", make_gguf(), "gguf"),
            ("model", make_gguf(), "gguf"),
            ("data.npz", make_zip({"a.npy": b"x"}), "zip"),
            ("model.pt", make_zip({"m/data.pkl": b"x"}), "pickle"),
            ("model.bin", b"\x80\x04\x95" + bytes(100), "pickle"),
            ("old.pkl", b"cos\nsystem\n", "pickle"),
            ("a/config.json", json.dumps(CONFIG).encode(), "config"),
            ("README.md", b"# Hello", None),
            ("GGUF.txt", b"GGUF is a format of files", None),
            ("empty", b"", None),
            ("log", (4).to_bytes(8, "little") + b'{"ab', None),
        ],
    )
    def test_is_chosen_by_name_or_sign(
        self, path: str, content: bytes, expected: str | None
    ) -> None:
        facts = facts_of(path, content)

        assert (None if facts is None else facts.format) == expected

    @pytest.mark.parametrize(
        ("path", "content", "error"),
        [
            ("model.safetensors", make_gguf(), LyingHeaderError),
            ("model.gguf", make_safetensors(), LyingHeaderError),
            ("model.gguf", b"", LyingHeaderError),
            ("model.onnx", make_safetensors(), LyingHeaderError),
            ("model.zip", make_gguf(), ArchiveRefusedError),
            ("model", b"PK\x03\x04" + bytes(40), ArchiveRefusedError),
            ("model", make_gguf()[:-1], LyingHeaderError),
        ],
    )
    def test_a_name_or_sign_that_is_not_kept_to_is_refused(
        self, path: str, content: bytes, error: type[Exception]
    ) -> None:
        with pytest.raises(error):
            facts_of(path, content)

    def test_of_more_than_is_read_the_format_is_told(self) -> None:
        length = 17 * 1024 * 1024

        facts = read(
            read_facts(FilePath("a.safetensors"), length + 8, b"", limit_unpacked_bytes=1),
            lambda _start, _stop: length.to_bytes(8, "little"),
        )

        assert facts == Facts(format="safetensors")


class TestWord:
    @pytest.mark.parametrize("value", ["", " ", "x" * 101, "a\nb", "a\0", "\ud800", 7, None])
    def test_takes_what_can_be_shown_and_kept(self, value: object) -> None:
        assert word(value) is None
        assert word(" 模型 ") == "模型"
