"""One component resource each: a frozen args object in, typed outputs out."""
