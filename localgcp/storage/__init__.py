"""Cloud Storage's library: contents in files, everything that is said about them in rows.

`files` knows bytes, `objects` knows names, generations and states, `uploads` what is not finished yet, `buckets` which
properties a bucket may have, `lifecycle` what time does. None of them knows HTTP; `media`, `signing`, `multipart`,
`xml_api` and `batch` do, and `localgcp.services.storage` is the JSON API.
"""
