# Training on CUDA, or on CPUs where there is no GPU. It has no data and no recipes but the built-in ones, whose data are packages of
# their own (trainers/recipes/requirements.txt): FROM this image, then `RUN python -m pip install ...` as root what you train.
#   docker build -f infra/images/trainer.Dockerfile -t steelyard-trainer .
#
# CUDA's libraries come with torch's own wheels, hashed in trainer.lock; the driver comes from the host through NVIDIA's container
# toolkit, which reads the two NVIDIA_ variables. A base image of NVIDIA's would bring the same libraries once more.
# The digest and --no-deps: see gateway.Dockerfile.
ARG PYTHON=python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b

FROM ${PYTHON} AS build
WORKDIR /src
COPY infra/images/trainer.lock infra/images/build.lock infra/images/
RUN python3 -m venv /opt/steelyard \
    && /opt/steelyard/bin/python -m pip install --no-cache-dir --no-deps --require-hashes --only-binary :all: -r infra/images/trainer.lock \
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
    && /opt/steelyard/bin/python -m pip install --no-cache-dir --no-deps --no-index /dist/steelyard-*.whl
COPY infra/images/sbom.py infra/images/
RUN /opt/steelyard/bin/python infra/images/sbom.py /opt/steelyard/sbom.cdx.json

FROM ${PYTHON}
COPY --from=build /opt/steelyard /opt/steelyard
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="steelyard-trainer" \
      org.opencontainers.image.description="Trains, quantizes and publishes models that the gateway serves" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
ENV PATH=/opt/steelyard/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 65532:65532
WORKDIR /scratch
STOPSIGNAL SIGTERM
ENTRYPOINT ["steelyard", "train"]
