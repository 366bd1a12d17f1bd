# The gateway alone: no torch, no training code's dependencies, no root.  Build from the repository's root:
#   docker build -f infra/docker/gateway.Dockerfile -t steelyard-gateway .
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY gateway gateway
COPY trainers trainers
COPY infra/prices infra/prices
RUN python -m venv /opt/steelyard \
    && /opt/steelyard/bin/pip install --no-cache-dir -c constraints.txt '.[gateway,text,docs]'

FROM python:3.11-slim-bookworm
COPY --from=build /opt/steelyard /opt/steelyard
USER 65532:65532
ENV PATH=/opt/steelyard/bin:$PATH PYTHONUNBUFFERED=1 STEELYARD_REPOSITORY__CACHE_DIR=/tmp/steelyard-cache
EXPOSE 8080
STOPSIGNAL SIGTERM
# Refuses to start while the store holds no key: `steelyard keys add --tenant NAME --store s3://...` makes the first one.
ENTRYPOINT ["steelyard", "serve", "--host", "0.0.0.0"]
