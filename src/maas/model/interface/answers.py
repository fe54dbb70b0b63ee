"""What the registry's routes share: where they are, and what they say of bytes."""

API = "/api/v1"
BYTES_STAY = (
    "The files can no longer be read. Bytes that no other file has are freed later, an hour after "
    "this unless set otherwise: whoever downloads them now has so long."
)
