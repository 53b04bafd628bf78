"""What a credential looks like: only forms that nothing else has, so that a find is a find."""

import re

SECRET = re.compile(
    rb"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----\s+[A-Za-z0-9+/]{64}"
    rb"|(?<![A-Z0-9])AKIA(?!IOSFODNN7EXAMPLE)[A-Z2-7]{16}(?![A-Z0-9])"
    rb"|(?<![A-Za-z0-9_])gh[pousr]_[A-Za-z0-9]{36}(?![A-Za-z0-9])"
    rb"|(?<![A-Za-z0-9_])github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}"
    rb"|(?<![A-Za-z0-9_-])sk-(?:ant-api03|or-v1|proj)-[A-Za-z0-9_-]{40,}"
    rb"|(?<![A-Za-z0-9_])syt_[A-Za-z0-9]{4,}_[A-Za-z]{20}_[A-Za-z0-9]{6}(?![A-Za-z0-9])"
    rb"|(?<![A-Za-z0-9])xox[bpars]-[0-9]{10,}-[0-9]{10,}-[A-Za-z0-9]{20,}"
)
