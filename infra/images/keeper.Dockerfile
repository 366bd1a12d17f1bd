# What looks after the ledger on a schedule: `steelyard ledger compact`, `ledger verify`, `budgets check`. Python, DuckDB, the store's
# client; no ONNX Runtime, no web framework, no shell, no package manager, no root. An image of its own, for DuckDB alone is 65 MB: in
# the gateway's it would be carried by every gateway that starts, beyond its 300 MB.
#   make image IMAGE=keeper     # or: docker build -f infra/images/keeper.Dockerfile -t steelyard-keeper .
#
# The digest is the gateway's, whose Dockerfile says where it is from.
ARG PYTHON=python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b

FROM ${PYTHON} AS build
WORKDIR /src
# The lists are complete, hence --no-deps: pip only compares hashes, and checks at the end.
COPY infra/images/keeper.lock infra/images/build.lock infra/images/
RUN python3 -m venv /opt/steelyard \
    && /opt/steelyard/bin/python -m pip install --no-cache-dir --no-compile --no-deps --require-hashes --only-binary :all: -r infra/images/keeper.lock \
    && /opt/steelyard/bin/python -m pip check \
    && python3 -m venv /opt/build \
    && /opt/build/bin/python -m pip install --no-cache-dir --no-deps --require-hashes --only-binary :all: -r infra/images/build.lock
COPY pyproject.toml README.md LICENSE ./
COPY gateway gateway
COPY trainers trainers
COPY infra/prices infra/prices
COPY infra/energy infra/energy
COPY infra/envoy/gateway.yaml infra/envoy/gateway.yaml
RUN /opt/build/bin/python -m hatchling build -t wheel -d /dist \
    && /opt/steelyard/bin/python -m pip install --no-cache-dir --no-compile --no-deps --no-index /dist/steelyard-*.whl
COPY infra/images/rootfs.py infra/images/sbom.py infra/images/
RUN /opt/steelyard/bin/python infra/images/rootfs.py /rootfs keeper

FROM scratch
COPY --from=build /rootfs /
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="steelyard-keeper" \
      org.opencontainers.image.description="Compacts and verifies the ledger of predictions and watches budgets" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
ENV PATH=/opt/steelyard/bin \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    XDG_CACHE_HOME=/tmp
USER 65532:65532
# The only place that is written to: copies of the ledger, for as long as a run takes.
VOLUME ["/tmp"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["steelyard"]
CMD ["--help"]
