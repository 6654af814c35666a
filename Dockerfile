# One image for the bridge, the workers, the web page and Flower. `make image` builds it.
# If the build needs a proxy or your own package index, set HTTP_PROXY, HTTPS_PROXY, NO_PROXY or
# PIP_INDEX_URL in the environment of `make image`.
FROM python:3.13-slim AS build
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/opt/dialer/bin:$PATH
RUN python -m venv /opt/dialer
WORKDIR /src
# The dependencies are a separate layer, so that a change of the code does not install them again.
COPY constraints.txt pyproject.toml ./
RUN python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
extras = p['optional-dependencies']; \
print('\n'.join(p['dependencies'] + extras['monitor'] + extras['web'] + extras['uvloop']))" >requirements.txt \
 && pip install -c constraints.txt hatchling -r requirements.txt \
 # Of Babel's 34 MB of languages the page needs two.
 && find /opt/dialer/lib/python3*/site-packages/babel/locale-data -type f \
    ! -name 'en*' ! -name 'pt*' ! -name 'root*' -delete
COPY celeryconfig.py ./
COPY dialer dialer
COPY workers workers
RUN pip install -c constraints.txt --no-build-isolation --no-deps . \
 && pip uninstall -y hatchling pip

FROM python:3.13-slim
RUN useradd --system --uid 10001 --no-create-home --home-dir /nonexistent dialer
COPY --from=build /opt/dialer /opt/dialer
COPY deploy/docker/healthcheck.py /opt/dialer/healthcheck.py
ENV PATH=/opt/dialer/bin:$PATH PYTHONUNBUFFERED=1 DIALER_CONFIG=/etc/dialer/dialer.toml
USER dialer
WORKDIR /tmp
CMD ["dialer", "bridge"]
