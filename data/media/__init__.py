"""Images, video and audio: from files to shards, from shards to rows of patches."""
