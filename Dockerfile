# docker build -t noisy_student .
# docker run --rm --init -u "$(id -u):$(id -g)" -v "$PWD:/work" noisy_student predict exported/chexpert films -o scores.csv
# With GPUs: --gpus all. Films and runs are below the folder that is mounted at /work.
FROM python:3.12-slim

RUN useradd --create-home --uid 1000 ns
COPY pyproject.toml README.md LICENSE /source/
COPY noisy_student /source/noisy_student
RUN pip install --no-cache-dir "/source[dicom,onnx]" && rm -r /source

# Any user may be asked for with -u, and finds a place for decoded films and for the figures' fonts.
RUN install -d -m 1777 /cache
ENV NS_CACHE=/cache/noisy_student MPLCONFIGDIR=/cache/matplotlib
USER ns
WORKDIR /work
ENTRYPOINT ["ns"]
CMD ["--help"]
