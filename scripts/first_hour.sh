#!/bin/sh
# What a newcomer does: from an installed mla-tui and a folder of text to a sampled text and a GGUF file, in six commands.
# Run it in a new folder: sh first_hour.sh TEXTS. With the installation that is seven; CI runs it with the wheel.
set -eux
mla-tui data pack "$1" --phase mine --train-tokenizer 512
mla-tui plan -p cpu_demo -s phase=mine -s steps=20
mla-tui launch -p cpu_demo -s phase=mine --name mine -s steps=20 -s context=64 -s sequences=4 -s micro=4 -s val_sequences=4
mla-tui watch mine
mla-tui sample mine --prompt 'def ' -n 20
mla-tui export mine mine.gguf
test -s mine.gguf
