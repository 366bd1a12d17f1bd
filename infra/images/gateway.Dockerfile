# The gateway alone: Python, what it imports, the libraries these need. No shell, no package manager, no torch, no root.
#   make image     # or: docker build -f infra/images/gateway.Dockerfile -t steelyard-gateway .
#
# The digest of python:3.11-slim-bookworm (3.11.16, all architectures) on 2026-09-22, as the repository docker-library/repo-info
# and Dockerfiles of several public repositories had it; this project has no way to ask the registry. Renew it with yours:
#   docker buildx imagetools inspect python:3.11-slim-bookworm
ARG PYTHON=python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b

FROM ${PYTHON} AS build
WORKDIR /src
# The lists are complete, hence --no-deps: pip only compares hashes, and checks at the end.
COPY infra/images/gateway.lock infra/images/build.lock infra/images/
RUN python3 -m venv /opt/steelyard \
    && /opt/steelyard/bin/python -m pip install --no-cache-dir --no-compile --no-deps --require-hashes --only-binary :all: -r infra/images/gateway.lock \
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
RUN /opt/steelyard/bin/python infra/images/rootfs.py /rootfs gateway

FROM scratch
COPY --from=build /rootfs /
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="steelyard-gateway" \
      org.opencontainers.image.description="Answers predictions of ONNX models over HTTP and weighs their cost" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
ENV PATH=/opt/steelyard/bin \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    STEELYARD_REPOSITORY__CACHE_DIR=/var/cache/steelyard
USER 65532:65532
# The only places that are written to. An empty volume takes its mode from the image here; on Fargate it would be root's otherwise.
VOLUME ["/tmp", "/var/cache/steelyard"]
EXPOSE 8080
STOPSIGNAL SIGTERM
# Refuses to start while the store holds no key: `steelyard keys add --tenant NAME --store s3://...` makes the first one.
ENTRYPOINT ["steelyard", "serve"]
CMD ["--host", "0.0.0.0"]
