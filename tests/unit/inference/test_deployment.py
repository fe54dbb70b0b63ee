"""Deployments: their names, what may be changed of them by whom, and their targets."""

from datetime import UTC, datetime
from typing import Any

import pytest

from maas.inference.domain.deployment import (
    Deployment,
    DeploymentName,
    DeploymentOfOperatorError,
    InvalidDeploymentNameError,
    Target,
    TargetTwiceError,
)
from maas.inference.public import DeploymentId, TargetId
from maas.model.public import ModelId, ProviderModelId, VersionReference
from maas.shared.domain.ids import AccountId, TenantId, new_id

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
LATER = datetime(2026, 11, 22, 13, tzinfo=UTC)

# Composed, so many marks take minutes.
MARKS = pytest.param("a" + "\u0315\u0300" * 200_000, id="marks")


def make_target(to: ProviderModelId | VersionReference | None = None, **values: Any) -> Target:
    return Target(id=TargetId(new_id()), to=to or ProviderModelId(new_id()), **values)


def make_deployment(**values: Any) -> Deployment:
    return Deployment(
        **{
            "id": DeploymentId(new_id()),
            "tenant_id": TenantId(new_id()),
            "name": DeploymentName("gemma"),
            "created_by": AccountId(new_id()),
            "created_at": NOON,
            "updated_at": NOON,
            "targets": (make_target(),),
            **values,
        }
    )


class TestNames:
    @pytest.mark.parametrize("text", ["gpt-4o", "acme/bot:7b", "a/b/c:d", "模型", "A.b+c_d"])
    def test_look_like_those_of_models(self, text: str) -> None:
        assert str(DeploymentName(text)) == text

    @pytest.mark.parametrize(
        "text", ["", " gpt", "gpt\n", "a//b", "a:b:c", "-a", "a/", "a\u200bb", "x" * 201, MARKS]
    )
    def test_others_are_refused(self, text: str) -> None:
        with pytest.raises(InvalidDeploymentNameError):
            DeploymentName(text)

    def test_one_look_has_one_spelling_and_case_and_width_matter(self) -> None:
        assert DeploymentName("caf\u0065\u0301") == DeploymentName("caf\u00e9")
        assert len({DeploymentName(text) for text in ("gpt", "GPT", "\uff47\uff50\uff54")}) == 3


class TestRevising:
    def test_what_is_left_out_stays_and_the_revision_counts(self) -> None:
        deployment = make_deployment(currency="EUR")

        deployment.revise(at=LATER, is_operator=False, status="disabled", max_choices=2)

        assert (deployment.status, deployment.max_choices, deployment.currency) == (
            "disabled",
            2,
            "EUR",
        )
        assert (deployment.revision, deployment.updated_at) == (2, LATER)

    def test_what_changes_nothing_leaves_the_revision(self) -> None:
        deployment = make_deployment()
        same = [make_target(target.to) for target in deployment.targets]

        deployment.revise(at=LATER, is_operator=False, status="active", targets=same)

        assert (deployment.revision, deployment.updated_at) == (1, NOON)

    def test_a_target_that_leads_to_the_same_keeps_its_id(self) -> None:
        version = VersionReference(model_id=ModelId(new_id()), alias="production")
        kept, gone = make_target(version), make_target()
        deployment = make_deployment(targets=(kept, gone))
        new = [make_target(), make_target(version, weight=7)]

        deployment.revise(at=LATER, is_operator=False, targets=new)

        assert [target.id for target in deployment.targets] == [new[0].id, kept.id]
        assert deployment.targets[1].weight == 7
        assert deployment.revision == 2

    def test_no_two_targets_lead_to_the_same(self) -> None:
        target = make_target()
        deployment = make_deployment(targets=(target,))

        with pytest.raises(TargetTwiceError) as refused:
            deployment.revise(
                at=LATER, is_operator=False, targets=[target, make_target(), make_target(target.to)]
            )

        assert refused.value.loc == ("body", "targets", 2)
        with pytest.raises(TargetTwiceError):
            make_deployment(targets=(target, target))


class TestOffering:
    """What puts a name into other tenants' lists is the operator's."""

    @pytest.mark.parametrize(
        ("was", "change"),
        [
            ({}, {"visibility": "public"}),
            ({"visibility": "public"}, {"name": DeploymentName("other")}),
            ({"is_granted": True}, {"name": DeploymentName("other")}),
        ],
    )
    def test_is_refused_to_others(self, was: dict[str, Any], change: dict[str, Any]) -> None:
        deployment = make_deployment(**was)

        with pytest.raises(DeploymentOfOperatorError):
            deployment.revise(at=LATER, is_operator=False, **change)
        assert deployment.revision == 1
        deployment.revise(at=LATER, is_operator=True, **change)
        assert deployment.revision == 2

    def test_less_of_it_is_not(self) -> None:
        deployment = make_deployment(visibility="public", is_granted=True)

        deployment.revise(at=LATER, is_operator=False, status="disabled")
        deployment.revise(
            at=LATER, is_operator=False, visibility="tenant", name=deployment.name, max_choices=1
        )

        assert deployment.revision == 3

    def test_a_new_public_one_is_the_operators(self) -> None:
        with pytest.raises(DeploymentOfOperatorError):
            make_deployment(visibility="public").check_offer(is_operator=False)
        make_deployment(visibility="public").check_offer(is_operator=True)
        make_deployment().check_offer(is_operator=False)
