"""The checklist: every demand of the CNI specification and of libcni on a plugin, and the test that shows it.

Sources: SPEC.md and CONVENTIONS.md of containernetworking/cni at 1.1.0, its pkg/skel and libcni where they are silent,
and what runtimes are known to send. A line that no test of a plugin can show says why not.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

HERE = Path(__file__).parent
RUNTIME = "not applicable: "
# number, what is demanded, where it is shown: `file::test` without their prefixes test_, or why not
LINES: list[tuple[int, str, str]] = [
    (1, "one executable per type, through a symbolic link", "spec_checklist::one_executable_serves_through_a_symlink"),
    (2, "JSON in, JSON out, exit status", "spec_checklist::add_and_del_in_every_version"),
    (3, "CNI_COMMAND is one of six words", "bad_input::an_unknown_verb"),
    (4, "which variables each verb needs", "spec_checklist::required_environment_of_each_verb"),
    (5, "container IDs: alphanumeric, then _ . -", "bad_input::container_ids"),
    (6, "interface names; one in use is an error", "spec_checklist::an_interface_name_in_use_is_an_error"),
    (7, "CNI_NETNS is a path to a namespace", "bad_input::namespaces"),
    (8, "the runtime's whole environment is seen", "spec_checklist::tracing_variables_and_the_rest"),
    (9, "SIGKILL at any moment", RUNTIME + "a suite of its own, tests/crash"),
    (10, "ETXTBSY: replace the executable by rename", RUNTIME + "conf/install does, test_install shows it"),
    (11, "unknown keys are the user's", "spec_checklist::unknown_keys_and_capabilities_are_tolerated"),
    (12, "null is absent, capabilities may stand there", "spec_checklist::unknown_keys_and_capabilities_are_tolerated"),
    (13, "keys in any case", "spec_checklist::keys_match_without_regard_to_case"),
    (14, "no version is 0.1.0; versions match exactly", "spec_checklist::versions_are_matched_exactly"),
    (15, "unparsable is 6, a bad name is 7, for every verb", "bad_input::network_names"),
    (16, "ipMasq, ipam, dns", "addresses::names_come_from_the_configuration"),
    (17, "cniVersions, disableCheck, disableGC, inlined plugins", RUNTIME + "libcni reads them and sends none of it"),
    (18, "ADD makes CNI_IFNAME and prints the result", "spec_results::interfaces_and_addresses_are_the_kernels"),
    (19, "ADD hands prevResult on", "spec_checklist::an_earlier_plugins_result_stays_in_the_result"),
    (20, "the same ADD twice", "again::add_again_answers_the_same_and_changes_nothing"),
    (21, "a delegate that fails on ADD gets a DEL", "delegation::a_failed_add_is_undone_by_its_del"),
    (22, "the plugin's own namespace is 8", "spec_checklist::the_hosts_own_namespace_is_refused_unless_overridden"),
    (23, "DEL succeeds when all is gone, again and again", "spec_del::del_of_what_never_was_succeeds"),
    (24, "prevResult on DEL may be absent or corrupt", "spec_del::del_does_all_it_can_with_any_configuration"),
    (25, "DEL of the chain after a failed ADD", "chain_tool::ours_fails_and_is_deleted_without_ever_having_been_added"),
    (26, "words that go-cni swallows", "spec_del::errors_do_not_hold_the_words"),
    (27, "a delegate's DEL and its errors", "delegation::del_takes_down_the_network_whatever_becomes_of_it"),
    (28, "CHECK compares and tolerates later plugins", "check::drift_is_named"),
    (29, "GC by the list, past errors, to delegates", "delegation::gc_goes_on_past_its_error_and_reports_it"),
    (30, "GC without a list, both names of the key", "gc::absent_is_not_empty"),
    (31, "GC not beside ADD and DEL", RUNTIME + "the runtime's duty; our lock would order them (tests/storm)"),
    (32, "who calls GC, STATUS, CHECK", RUNTIME + "facts about runtimes"),
    (33, "STATUS 50 and 51, forwarded", "status_gc::an_exhausted_pool_is_not_ready"),
    (34, "CHECK since 0.4.0, GC and STATUS since 1.1.0", "spec_checklist::verbs_need_the_version_that_brought_them"),
    (35, "VERSION with nothing else set", "spec_checklist::version_needs_nothing_and_lists_all"),
    (36, "no CNI_COMMAND: about text on stderr", "spec_checklist::without_a_command_it_says_what_it_is_on_stderr"),
    (37, "what a result says of interfaces and addresses", "spec_results::interfaces_and_addresses_are_the_kernels"),
    (38, "the shape of each version; conversion", "spec_results::shape_of_0_2_0"),
    (39, "prevResult without a version", "spec_results::prev_result_is_read_in_the_configurations_version"),
    (40, "a delegate's result without a version", "spec_results::a_delegates_result_is_converted"),
    (41, "an error has code and message", "spec_checklist::an_error_is_one_document_on_stdout"),
    (42, "errors on stdout, all of them in the document", "spec_checklist::an_error_is_one_document_on_stdout"),
    (43, "nothing but the document on stdout", "spec_checklist::success_without_a_result_prints_nothing"),
    (44, "CNI_ARGS, IgnoreUnknown", "spec_checklist::unknown_args_need_ignore_unknown"),
    (45, "args.cni silences CNI_ARGS", "spec_checklist::args_cni_silences_the_same_key_of_cni_args"),
    (46, "capabilities", "runtimes_order::what_containerd_sends_besides"),
    (47, "nerdctl: hostIP always, IP and MAC by CNI_ARGS", "nerdctl_order::nerdctl_leaves_the_host_exactly_as_it_was"),
    (48, "different containers at once", RUNTIME + "a suite of its own, tests/storm"),
    (49, "several networks of one container at once", "links::two_interfaces_added_at_the_same_time"),
    (50, "the configuration changes between ADD and DEL", "spec_del::del_in_another_version_than_add"),
    (51, "DEL before ADD is silent", "nerdctl_order::nerdctl_leaves_the_host_exactly_as_it_was"),
    (52, "delegation: path, environment, configuration", "delegation::every_verb_hands_on_the_whole_request"),
    (53, "any other ipam.type is run", "delegation::the_reference_plugin_host_local_under_another_name"),
    (54, "works behind another plugin of a chain", "spec_checklist::an_earlier_plugins_result_stays_in_the_result"),
]


def test_the_numbers_have_no_gap() -> None:
    assert [number for number, _, _ in LINES] == list(range(1, 55))


@pytest.mark.parametrize(("number", "where"), [(number, where) for number, _, where in LINES])
def test_what_is_said_to_be_shown_is_there(number: int, where: str) -> None:
    if where.startswith(RUNTIME):
        assert len(where) > len(RUNTIME)
        return
    room, name = where.split("::")
    tree = ast.parse((HERE / f"test_{room}.py").read_text())
    names = [item.name for item in tree.body if isinstance(item, ast.FunctionDef)]
    assert any(found.startswith(f"test_{name}") for found in names), f"line {number}: no {where}"
