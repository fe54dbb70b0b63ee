"""Suppliers: what may be changed of them, and when their key goes."""

import unicodedata
from datetime import UTC, datetime
from typing import Any, get_args

import pytest

from maas.model.application.provider_queries import ProviderDetails
from maas.model.domain.provider import (
    MAX_KEY_CHARS,
    ApiVersion,
    ApiVersionNotUsedError,
    CredentialNotSetError,
    InvalidApiVersionError,
    InvalidProviderNameError,
    InvalidSupplierKeyError,
    Provider,
    ProviderName,
    ProviderOfOperatorError,
    SupplierKey,
    Target,
)
from maas.model.domain.provider_types import PROVIDER_TYPES
from maas.model.infrastructure.provider_targets import SupplierTargets
from maas.model.public import ProviderId, ProviderKind
from maas.shared.domain.ids import AccountId, TenantId, new_id
from maas.shared.infrastructure.settings import OutgoingSettings

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
LATER = datetime(2026, 11, 22, 13, tzinfo=UTC)
KEY = "sk-canary-0123456789"  # no key of anybody's


def make_provider(**values: Any) -> Provider:
    return Provider(
        **{
            "id": ProviderId(new_id()),
            "tenant_id": TenantId(new_id()),
            "name": ProviderName("OpenAI"),
            "type": "openai",
            "base_url": "https://api.example.com/v1",
            "reach": "public",
            "created_by": AccountId(new_id()),
            "created_at": NOON,
            "updated_at": NOON,
            "credential_set_at": NOON,
            **values,
        }
    )


def target(base_url: str) -> Target:
    return SupplierTargets(OutgoingSettings())(base_url, is_operator=False)


class TestRevising:
    @pytest.mark.parametrize(
        "base_url",
        [
            "https://evil.example.com/v1",
            "https://api.example.com.evil.com/v1",
            "https://api.example.com.:443/v1",
            "https://api.example.com/v2",
            "https://api.example.com/echo/v1",
        ],
    )
    def test_a_key_does_not_follow_to_another_address(self, base_url: str) -> None:
        provider = make_provider()
        provider.revise(at=LATER, target=target(base_url))
        assert provider.credential_set_at is None
        assert provider.base_url != "https://api.example.com/v1"

    @pytest.mark.parametrize(
        "origin", ["http://api.example.com", "https://api.example.com:8443", "https://a.b"]
    )
    def test_a_key_does_not_follow_to_another_scheme_or_port(self, origin: str) -> None:
        provider = make_provider()
        provider.revise(at=LATER, target=Target(base_url=f"{origin}/v1", reach="private"))
        assert provider.credential_set_at is None
        assert provider.reach == "private"

    def test_a_key_does_not_follow_to_another_type(self) -> None:
        provider = make_provider()
        provider.revise(at=LATER, type="openai-compatible")
        assert provider.credential_set_at is None

    @pytest.mark.parametrize(
        "base_url",
        [
            "https://API.Example.com/v1/",
            "https://api.example.com:443/v1",
        ],
    )
    def test_a_key_stays_where_the_address_is_only_spelt_otherwise(self, base_url: str) -> None:
        provider = make_provider()
        provider.revise(at=LATER, target=target(base_url), name=ProviderName("Other"))
        assert provider.credential_set_at == NOON

    def test_what_changes_nothing_leaves_the_revision(self) -> None:
        provider = make_provider()
        provider.revise(
            at=LATER, name=ProviderName("OpenAI"), target=target("https://api.example.com/v1/")
        )
        assert (provider.revision, provider.updated_at) == (1, NOON)
        provider.revise(at=LATER, status="disabled")
        assert (provider.revision, provider.updated_at) == (2, LATER)

    def test_only_types_with_versions_take_one(self) -> None:
        version = ApiVersion("preview")
        with pytest.raises(ApiVersionNotUsedError):
            make_provider(api_version=version)
        azure = make_provider(type="azure", api_version=version)
        with pytest.raises(ApiVersionNotUsedError):
            azure.revise(at=LATER, type="openai")
        azure.revise(at=LATER, type="openai", api_version=None)
        assert azure.type == "openai"


class TestCredential:
    def test_it_is_had_once_it_is_set_and_lost_once(self) -> None:
        provider = make_provider(credential_set_at=None)
        provider.have_credential(at=LATER)
        assert (provider.credential_set_at, provider.revision) == (LATER, 2)
        provider.lose_credential(at=LATER)
        with pytest.raises(CredentialNotSetError):
            provider.lose_credential(at=LATER)
        assert (provider.credential_set_at, provider.revision) == (None, 3)

    def test_it_goes_with_the_provider(self) -> None:
        provider = make_provider()
        provider.delete(at=LATER)
        assert provider.credential_set_at is None
        assert provider.deleted_at == LATER

    def test_a_key_shows_itself_to_nobody(self) -> None:
        key = SupplierKey(KEY)
        said = f"{key} {key!r} {[key]} {ProviderDetails.of(make_provider())!r}"
        assert KEY not in said
        assert key.plain == KEY

    @pytest.mark.parametrize(
        "text", ["", " ", "a b", "a\n", "a\r\nx: y", "ключ", "\x7f", "a" * (MAX_KEY_CHARS + 1)]
    )
    def test_what_no_header_can_hold_is_refused_and_not_quoted(self, text: str) -> None:
        with pytest.raises(InvalidSupplierKeyError) as refused:
            SupplierKey(text)
        assert not text.strip() or text not in str(refused.value)

    def test_the_operators_are_changed_by_the_operator(self) -> None:
        private = make_provider(reach="private")
        private.check_operator(is_operator=True)
        make_provider().check_operator(is_operator=False)
        with pytest.raises(ProviderOfOperatorError):
            private.check_operator(is_operator=False)


class TestNames:
    def test_one_look_has_one_spelling(self) -> None:
        composed, apart = (unicodedata.normalize(form, "é 通义") for form in ("NFC", "NFD"))
        assert ProviderName(f" {apart} ") == ProviderName(composed)
        assert composed != apart

    @pytest.mark.parametrize("text", ["", "  ", "a\nb", "a\u200bb", "a" * 101])
    def test_a_name_is_one_visible_line(self, text: str) -> None:
        with pytest.raises(InvalidProviderNameError):
            ProviderName(text)

    @pytest.mark.parametrize("text", ["", "a b", "2024&x=1", "a" * 33, "é"])
    def test_a_version_adds_nothing_to_a_query(self, text: str) -> None:
        with pytest.raises(InvalidApiVersionError):
            ApiVersion(text)


class TestTypes:
    def test_there_is_one_record_for_each_type(self) -> None:
        assert tuple(PROVIDER_TYPES) == get_args(ProviderKind)
        assert all(name == each.type for name, each in PROVIDER_TYPES.items())

    @pytest.mark.parametrize("name", PROVIDER_TYPES)
    def test_its_own_base_url_may_be_called_as_it_stands(self, name: ProviderKind) -> None:
        base_url = PROVIDER_TYPES[name].base_url
        assert base_url is None or target(base_url).base_url == base_url

    @pytest.mark.parametrize("name", PROVIDER_TYPES)
    def test_its_example_may_be_called_where_the_operator_lets_it(self, name: ProviderKind) -> None:
        example = PROVIDER_TYPES[name].base_url_example
        host = example.split("/")[2]
        listed = OutgoingSettings(allowed_private_targets=(host,)) if ":" in host else None
        check = SupplierTargets(listed or OutgoingSettings())
        assert check(example, is_operator=True).base_url == example

    def test_the_key_goes_as_each_wants_it(self) -> None:
        sent = {name: PROVIDER_TYPES[name].key_headers(KEY) for name in PROVIDER_TYPES}
        assert sent.pop("azure") == {"api-key": KEY}
        assert sent.pop("anthropic") == {"anthropic-version": "2023-06-01", "x-api-key": KEY}
        assert all(each == {"Authorization": f"Bearer {KEY}"} for each in sent.values())

    def test_without_a_key_none_is_sent(self) -> None:
        sent = {name: each.key_headers(None) for name, each in PROVIDER_TYPES.items()}
        assert sent.pop("anthropic") == {"anthropic-version": "2023-06-01"}
        assert not any(sent.values())
