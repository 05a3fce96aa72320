# One image for every service of docker-compose.yml. It could not be built where it was written (no engine there);
# the commands that the services run are tested as local processes.
FROM python:3.12-slim

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app

COPY requirements-uv.lock requirements.lock ./
RUN python -m venv /app/.venv \
    && /app/.venv/bin/pip install --no-cache-dir --require-hashes -r requirements-uv.lock \
    && VIRTUAL_ENV=/app/.venv /app/.venv/bin/uv pip install --no-cache --require-hashes -r requirements.lock

COPY pyproject.toml README.md ./
COPY db db
COPY search search
COPY workers workers
COPY service service
COPY examples examples
RUN VIRTUAL_ENV=/app/.venv /app/.venv/bin/uv pip install --no-cache --no-deps --no-build-isolation --editable .

# a volume that is mounted on /storage begins with this owner
RUN useradd --create-home --uid 1000 attune && install --directory --owner=attune --mode=700 /storage
ARG ATTUNE_REVISION=unknown
ENV ATTUNE_REVISION=$ATTUNE_REVISION
USER attune
ENV PATH=/app/.venv/bin:$PATH ATTUNE_HOME=/home/attune/.attune RAY_USAGE_STATS_ENABLED=0
CMD ["attune", "--help"]
