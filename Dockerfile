# docker build -t lb . && docker run --rm --read-only -p 8080:8080 -v ./lb.yaml:/etc/lb/lb.yaml:ro lb
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS builder
# For the modules that every request passes; only what they become goes into the image below.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev
WORKDIR /src
# Built in the place where it will run, since a virtual environment can't be moved; without pip of its own.
RUN python -m venv --without-pip /opt/lb
COPY pyproject.toml setup.py README.md LICENSE ./
COPY lb lb
# Byte code made here, since nothing can be written later. "unchecked-hash": valid whatever happens to the times of files.
RUN pip --python /opt/lb/bin/python install --no-cache-dir --no-compile '.[auth]' \
    && python -m compileall -q --invalidation-mode unchecked-hash /opt/lb/lib

FROM python:${PYTHON}-slim
LABEL org.opencontainers.image.title="lb" \
      org.opencontainers.image.description="A layer-7 load balancer that explains every pick" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=builder /opt/lb /opt/lb
ENV PATH=/opt/lb/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# A number, so that Kubernetes can tell that it isn't root (runAsNonRoot).
USER 10001:10001
# Traffic, and the admin server, which can be reached from outside only where admin.bind says so.
EXPOSE 8080 9901
STOPSIGNAL SIGTERM
# No proxies: an http_proxy in the environment is not meant for this question.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 CMD ["python", "-c", "from urllib.request import ProxyHandler, build_opener; build_opener(ProxyHandler({})).open('http://127.0.0.1:9901/livez', timeout=2)"]
# The exec form, so that lb is process 1 and SIGTERM reaches it. The configuration is mounted, none is shipped.
ENTRYPOINT ["lb"]
CMD ["serve", "-c", "/etc/lb/lb.yaml"]
