"""OpenID Connect: what the gateway asks an issuer, and what it believes of the answer."""
