"""tempmail: a receive-only SMTP server whose mail is read over HTTP and WebSocket. FLOW.md shows the way through."""
