# The page and every other verb in one image; docs/docker.md says how to build and to use it.

# The same image by digest, or a mirror's, where builds have to be repeatable or offline.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS dependencies
# Which build of PyTorch: cpu, or its name for a CUDA version, like cu130.
ARG TORCH=cpu
ARG TORCH_VERSION=2.14.1
ARG TORCHVISION_VERSION=0.29.1
ARG TORCH_INDEX=https://download.pytorch.org/whl/${TORCH}
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN apt-get update \
    && apt-get install --yes --no-install-recommends tini=0.19.* \
    && rm -rf /var/lib/apt/lists/*
# PyTorch first and from its own index: the package index has one build of each version only.
RUN python -m venv --without-pip /opt/venv \
    && pip --python /opt/venv/bin/python install --index-url "${TORCH_INDEX}" \
        "torch==${TORCH_VERSION}" "torchvision==${TORCHVISION_VERSION}"
WORKDIR /source
COPY pyproject.toml constraints.txt ./
RUN python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' \
        > requirements.txt \
    && pip --python /opt/venv/bin/python install --constraint constraints.txt --requirement requirements.txt

FROM dependencies AS package
COPY . .
# In a tree of its own, so that a change of the code replaces a small layer and not PyTorch's.
RUN pip --python /opt/venv/bin/python install --no-deps --root /package .

FROM ${BASE}
LABEL org.opencontainers.image.title="nonlocal-video" \
      org.opencontainers.image.description="Recognise actions in video, and see which places made the answer." \
      org.opencontainers.image.licenses="Apache-2.0"
# The base brings an installer; what runs needs none.
RUN pip uninstall --yes pip setuptools wheel \
    && useradd --uid 1000 --no-create-home --home-dir /tmp user \
    && install --directory --owner 1000 --group 1000 /cache /results
# As the first process of a container, a program without a handler of its own would not hear SIGTERM: tini is the first.
COPY --from=dependencies /usr/bin/tini-static /usr/bin/tini
COPY --from=dependencies /opt/venv /opt/venv
COPY --from=package /package/opt/venv /opt/venv
# Any user id will do, and the root file system may be read-only: /tmp is all that is written to.
ENV HOME=/tmp \
    NONLOCAL_VIDEO_CACHE=/cache \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility,video \
    PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1
USER 1000:1000
WORKDIR /results
EXPOSE 7860
# A server that is loading its model is not ill yet. http.client, because urllib would ask a proxy.
HEALTHCHECK --interval=30s --timeout=10s --start-period=120s --retries=3 \
    CMD ["python", "-c", "from http.client import HTTPConnection as C; c = C('127.0.0.1', 7860, timeout=5); c.request('GET', '/healthz'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["tini", "--", "nonlocal-video"]
CMD ["serve", "--host", "0.0.0.0"]
