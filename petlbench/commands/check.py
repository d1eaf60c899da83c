"""is a method sound? seconds, on tiny models"""

from __future__ import annotations

import argparse
import time

from petlbench.commands import _shared as shared
from petlbench.errors import UsageError

ORDER = 95


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("methods", nargs="*", metavar="METHOD", help="a file, or a method's name")
    parser.add_argument("--all", action="store_true", help="every built-in method, as a table")


def run(options: argparse.Namespace) -> int:
    from petlbench import method
    from petlbench.check import check as findings_of

    if options.all == bool(options.methods):
        raise UsageError("say which methods to check, or --all: petlbench check convpass")
    if options.all:
        return _all()
    sound = True
    for reference in options.methods:
        cls = method.load(reference)
        shared.say(
            f"{reference}: {(cls.__doc__ or '').strip().splitlines()[0] if cls.__doc__ else ''}"
        )
        findings = list(findings_of(method.create(cls, reference, {})))
        for finding in findings:
            if finding.refused:
                shared.say(f"  refuses        {finding.model}: {finding.detail}")
        for claim in dict.fromkeys(f.claim for f in findings if not f.refused):
            failed = [f for f in findings if f.claim == claim and not f.holds]
            shared.say(f"  {'holds        ' if not failed else 'DOES NOT HOLD'}  {claim}")
            for finding in failed:
                shared.say(f"                   on {finding.model}: {finding.detail}")
        holds = all(finding.holds for finding in findings)
        sound &= holds
        verdict = "is sound" if holds else "is NOT sound"
        checks = [finding for finding in findings if not finding.refused]
        models = len({finding.model for finding in checks})
        shared.say(f"  {reference} {verdict} ({len(checks)} checks on {models} tiny models)")
    return 0 if sound else 1


def _all() -> int:
    """A row per built-in method as it is done: the verdict, its count on ViT-B/16, seconds."""
    from petlbench import method
    from petlbench.check import check as findings_of
    from petlbench.check import count_on_vit_b16

    shared.say(
        f"{'method':<18}{'verdict':<15}{'claims':>7}{'refuses':>9}{'ViT-B/16':>13}{'seconds':>9}"
    )
    sound = True
    for name in method.builtin():
        begin = time.perf_counter()
        built = method.load(name)()
        findings = list(findings_of(built))
        failed = [f for f in findings if not f.holds]
        refused = sum(f.refused for f in findings)
        sound &= not failed
        shared.say(
            f"{name:<18}{'DOES NOT HOLD' if failed else 'holds':<15}{len(findings) - refused:>7}"
            f"{refused:>9}{count_on_vit_b16(built):>13,}{time.perf_counter() - begin:>9.1f}",
        )
        for finding in failed:
            shared.say(f"    {finding.claim}, on {finding.model}: {finding.detail}")
    shared.say(
        "claims: measured on tiny models; refuses: tiny models that the method does not fit;"
    )
    shared.say("ViT-B/16: trainable parameters, declared and measured, without the head")
    return 0 if sound else 1
