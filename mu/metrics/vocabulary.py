"""``METRICS``: every recorded number, with its label, unit, direction, source, and what the papers call it.

Names that look alike differ between papers: NatMU's RA is a test accuracy, UGradSL's is one on D_r; UA is an
error in UGradSL and an accuracy in Akbari et al.; NatMU and JiT print the rate called member (low where the
attack finds nothing), UGradSL and Akbari et al. the rate called non-member (high where it finds nothing).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A recorded number.

    Args:
        label: How tables head it.
        unit: `fraction` (printed times 100), `s`, `count`, `nats` or empty.
        better: `target` (the retrained model's value), `lower` or `higher`.
        source: Where the definition is from.
        names: What the papers call it, as paper to name.
        when: Who has it: every `trial`; a `finalist`, on which costly attacks and diagnostics are run as well;
            `analysis`, which needs several models.
    """

    label: str
    unit: str
    better: str
    source: str
    names: Mapping[str, str]
    when: str = "trial"


METRICS: dict[str, Metric] = {
    "acc_test": Metric(
        "Test accuracy",
        "fraction",
        "target",
        "accuracy on the view's held-out images",
        {
            "NatMU (random)": "RA",
            "JiT (random)": "D_r acc",
            "TMU": "ACC_Dtest",
            "Akbari": "TA",
            "UGradSL (random)": "TA",
        },
    ),
    "acc_test_retain": Metric(
        "Test accuracy, retained classes",
        "fraction",
        "target",
        "held-out images without the forgotten class or sub-class",
        {"NatMU (class)": "RA", "JiT (class)": "D_r acc", "UGradSL (class)": "TA"},
    ),
    "acc_test_forget": Metric(
        "Test accuracy, forgotten class",
        "fraction",
        "target",
        "held-out images of the forgotten class or sub-class",
        {"NatMU": "FATest", "JiT (class)": "D_f acc"},
    ),
    "acc_retain": Metric(
        "Retain accuracy",
        "fraction",
        "target",
        "accuracy on the retained training images",
        {"Akbari": "RA", "UGradSL": "RA"},
    ),
    "acc_forget": Metric(
        "Forget accuracy",
        "fraction",
        "target",
        "accuracy on the forgotten training images",
        {
            "NatMU (random)": "FA",
            "NatMU (class)": "FATrain",
            "JiT (random)": "D_f acc",
            "TMU": "ACC_Df",
            "Akbari": "UA",
            "UGradSL": "100 - UA",
        },
    ),
    "err_forget": Metric("Forget error", "fraction", "target", "1 - acc_forget", {"UGradSL": "UA"}),
    "mia_lr_entropy": Metric(
        "MIA (entropy, member rate)",
        "fraction",
        "target",
        "Chundawat et al. 2023; NatMU App. C; JiT",
        {"NatMU": "MIA", "JiT": "MIA"},
    ),
    **{
        f"mia_lr_entropy_{key}": Metric(
            f"MIA (entropy, rate on {words})",
            "fraction",
            "target",
            f"share of {words} samples that the attack of mia_lr_entropy calls members",
            {},
        )
        for key, words in (("held_out", "held-out"), ("retain", "retained"))
    },
    "mia_lr_entropy_auc": Metric(
        "MIA (entropy, AUC)",
        "fraction",
        "target",
        "chance that an entropy on D_f is below a held-out one",
        {},
    ),
    "mia_population_asr": Metric(
        "MIA (population, member rate)",
        "fraction",
        "target",
        "Ye et al. 2022, attack P, at the threshold that best parts D_r from the population",
        {"TMU": "ASR"},
    ),
    "mia_population_auc": Metric(
        "MIA (population, AUC)",
        "fraction",
        "target",
        "chance that a loss on D_f is below one on held-out images outside the population",
        {},
    ),
    **{
        f"mia_population_asr_fpr{percent}": Metric(
            f"MIA (population, {percent} % false positives)",
            "fraction",
            "target",
            f"Ye et al. 2022, attack P: share of D_f below the {percent} % quantile of the population's losses",
            {},
        )
        for percent in (1, 5, 10, 25, 50)
    },
    **{
        f"{attack}_tpr_{key}": Metric(
            f"MIA ({name}, TPR at {percent} % FPR)",
            "fraction",
            "target",
            f"largest share of D_f called members when {percent} % of held-out samples are (Carlini et al. 2022)",
            {},
        )
        for attack, name in (("mia_population", "population"), ("mia_lr_entropy", "entropy"))
        for key, percent in (("fpr1", "1"), ("fpr0.1", "0.1"))
    },
    **{
        f"mia_svc_{key}_nonmember": Metric(
            f"MIA (SVC on {feature}, non-member rate)",
            "fraction",
            "target",
            "Jia et al. 2023 (Unlearn-Sparse); SalUn",
            names,
            "finalist",
        )
        for key, feature, names in (
            ("conf", "confidence", {"UGradSL": "MIA_Score"}),
            ("correctness", "correctness", {}),
            ("entropy", "entropy", {}),
            ("m_entropy", "modified entropy", {}),
            ("prob", "probabilities", {}),
        )
    },
    "mia_svc_m_entropy_columns_nonmember": Metric(
        "MIA (SVC on modified entropy of the public code, non-member rate)",
        "fraction",
        "target",
        "as Unlearn-Sparse and SalUn compute it, where a sample's value depends on its batch; for comparison only",
        {},
        "finalist",
    ),
    **{
        f"mia_svc_chunked_{key}_nonmember": Metric(
            f"MIA (SVC on {feature}, D_r in parts, non-member rate)",
            "fraction",
            "target",
            "Akbari et al.: mean over parts of D_r as long as the held-out set, one machine each",
            {"Akbari": name},
            "finalist",
        )
        for key, feature, name in (
            ("conf", "confidence", "confidence"),
            ("correctness", "correctness", "correctness"),
            ("entropy", "entropy", "entropy"),
            ("prob", "probabilities", "prob"),
        )
    },
    "mia_svc_gap4": Metric(
        "MIA (SVC), mean gap of four",
        "fraction",
        "lower",
        "mean over correctness, confidence, entropy and probabilities of the gap to the retrained model",
        {},
        "finalist",
    ),
    "mia_svc_gap_max": Metric(
        "MIA (SVC), largest gap of four",
        "fraction",
        "lower",
        "largest of the same four gaps (ours)",
        {},
        "finalist",
    ),
    "mia_svc_chunked_gap4": Metric(
        "MIA (SVC, D_r in parts), mean gap of four",
        "fraction",
        "lower",
        "Akbari et al.: mean over the four attacks on D_r in parts of the gap to the retrained model",
        {"Akbari": "best attack MIA"},
        "finalist",
    ),
    "mia_acc_forget_test": Metric(
        "MIA (D_f against held-out, accuracy)",
        "fraction",
        "target",
        "NeurIPS 2023 starting kit: cross-validated logistic regression on the loss, balanced sets",
        {"UGradSL": "Add. MIA"},
        "finalist",
    ),
    "activation_distance": Metric(
        "Activation distance",
        "",
        "lower",
        "mean L2 distance of softmax outputs to the retrained model on D_f, in [0, sqrt 2]",
        {"TMU": "AD"},
    ),
    "delta_acc_forget": Metric(
        "Forget accuracy gap",
        "fraction",
        "lower",
        "|acc_forget - the retrained model's|; over several forget classes the mean of these",
        {"TMU": "Delta"},
    ),
    "avg_gap_natmu": Metric(
        "AvgGap", "fraction", "lower", "mean gap over NatMU's list of metrics", {"NatMU": "AvgGap"}
    ),
    "avg_gap_ugradsl": Metric(
        "Avg. Gap (UGradSL)",
        "fraction",
        "lower",
        "mean gap over UA, MIA_Score, RA and TA",
        {"UGradSL": "Avg. Gap"},
        "finalist",
    ),
    "avg_gap_ugradsl5": Metric(
        "Avg. Gap (UGradSL, five metrics)",
        "fraction",
        "lower",
        "the same with Add. MIA",
        {"UGradSL (Table 4)": "Avg. Gap"},
        "finalist",
    ),
    "entropy_wilcoxon_p": Metric(
        "Entropy, Wilcoxon p",
        "",
        "higher",
        "two-sided signed-rank test of entropies on D_f against the retrained model's; depends on |D_f|",
        {"JiT": "Fig. 4"},
    ),
    "entropy_median_diff": Metric(
        "Entropy, median difference",
        "nats",
        "target",
        "median over D_f of entropy minus the retrained model's (0 is best)",
        {},
    ),
    "streisand_tv": Metric(
        "Streisand distance",
        "fraction",
        "target",
        "mean over classes of half the L1 distance between confusion rows of D_f and of held-out images",
        {"UGradSL": "Fig. 5"},
    ),
    "loss_ks": Metric(
        "Loss distance (KS)",
        "fraction",
        "target",
        "Kolmogorov-Smirnov distance between losses on D_f and on held-out images",
        {"UGradSL": "Fig. 8"},
    ),
    "rf_jsd": Metric(
        "RF-JSD",
        "nats",
        "lower",
        "LoTUS (2503.18314): predictions on D_f, by class, against the original's on held-out images",
        {},
    ),
    "streisand_max": Metric(
        "Streisand, largest difference",
        "fraction",
        "target",
        "largest difference of two cells of those confusion rows",
        {"UGradSL": "Fig. 5"},
    ),
    "streisand_hist_tv": Metric(
        "Streisand, predicted classes",
        "fraction",
        "target",
        "half the L1 distance between histograms of predicted classes",
        {},
    ),
    "streisand_hist_js": Metric(
        "Streisand, predicted classes (JS)",
        "nats",
        "target",
        "Jensen-Shannon divergence between histograms of predicted classes",
        {},
    ),
    "wrong_class_rate": Metric(
        "Most frequent wrong class",
        "fraction",
        "target",
        "largest share of D_f that is predicted as one and the same wrong class",
        {},
    ),
    "zrf": Metric(
        "Zero-retrain forgetting",
        "",
        "target",
        "Chundawat et al. 2023: 1 - mean Jensen-Shannon divergence to an untrained model on D_f",
        {},
    ),
    "kl_naturalness": Metric(
        "Unnaturalness of labels",
        "nats",
        "lower",
        "mean KL(label || retrained model's prediction) of unlearning instances",
        {"NatMU": "Fig. 2a"},
        "finalist",
    ),
    "partial_forget_acc": Metric(
        "Partial forgetting accuracy",
        "fraction",
        "target",
        "share of masked forget images classified as the label their hybrid was given",
        {"NatMU": "PFA"},
        "finalist",
    ),
    "partial_forget_acc_retrain": Metric(
        "Partial forgetting accuracy of the retrained model",
        "fraction",
        "target",
        "the same share under the retrained model, on the images that this run's method made",
        {"NatMU": "PFA of Retrain"},
        "finalist",
    ),
    "acc_gl": Metric(
        "Accuracy of easy/hard labels",
        "fraction",
        "higher",
        "predicted hard samples of D_f against those the gold model gets wrong",
        {"TMU": "ACC_gl"},
        "finalist",
    ),
    "u_lira_acc": Metric(
        "U-LiRA accuracy",
        "fraction",
        "lower",
        "Hayes et al. 2024: balanced accuracy at telling unlearned from never trained; 0.5 is best",
        {},
        "analysis",
    ),
    **{
        f"{attack}_{key}": Metric(
            f"{label}, {what}", "fraction", "lower", f"{source}; {best} is best", {}, "analysis"
        )
        for attack, label, source in (
            ("u_lira", "U-LiRA", "Hayes et al. 2024, by likelihood ratio"),
            ("rmia", "RMIA", "Zarifzadeh et al. 2024, offline"),
        )
        for key, what, best in (
            ("auc", "AUC", "0.5"),
            ("tpr_fpr1", "TPR at 1 % FPR", "0.01"),
            ("tpr_fpr0.1", "TPR at 0.1 % FPR", "0.001"),
        )
    },
    "fscore_neurips": Metric(
        "F-score (forgetting quality)",
        "fraction",
        "higher",
        "NeurIPS 2023 challenge, on all report seeds' models (K of either kind), delta 0.01, 13 bins of 0.5; not "
        "comparable between values of K",
        {},
        "analysis",
    ),
    "score_neurips": Metric(
        "Challenge score",
        "",
        "higher",
        "F-score times the ratios of retain and test accuracy to the retrained models'",
        {},
        "analysis",
    ),
    "fscore_seed003": Metric(
        "F-score (Akbari et al.)",
        "fraction",
        "higher",
        "as that paper's code computes it; rises when models are easier to tell apart, for comparison only",
        {"Akbari": "F-score"},
        "analysis",
    ),
    "label_ldp_eps": Metric(
        "Label-LDP epsilon",
        "nats",
        "lower",
        "UGradSL Theorem 3, of the weights and the smoothing rate; no measurement of a model",
        {"UGradSL": "epsilon"},
        "finalist",
    ),
    "label_ldp_empirical": Metric(
        "Label log-ratio",
        "nats",
        "target",
        "mean over D_f of |ln(p_y / mean of the other probabilities)| (ours)",
        {},
    ),
    "time_unlearn": Metric(
        "Unlearning time",
        "s",
        "lower",
        "the method alone, without evaluation",
        {"JiT": "runtime", "UGradSL": "RTE"},
    ),
    "samples_seen": Metric(
        "Samples seen", "count", "lower", "samples passed forward with gradient", {}
    ),
    "time_retrain": Metric(
        "Retraining time",
        "s",
        "lower",
        "training without the forgotten samples",
        {"UGradSL": "RTE of Retrain"},
        "analysis",
    ),
    "rte_speedup": Metric(
        "Speed-up", "", "higher", "time_retrain / time_unlearn (ours)", {}, "analysis"
    ),
}

AVG_GAP_NATMU = {
    True: ("acc_test_retain", "acc_forget", "acc_test_forget", "mia_lr_entropy"),
    False: ("acc_test", "acc_forget", "mia_lr_entropy"),
}
"""NatMU's AvgGap list, by whether a whole class or sub-class is forgotten."""

AVG_GAP_UGRADSL = {
    True: ("err_forget", "mia_svc_conf_nonmember", "acc_retain", "acc_test_retain"),
    False: ("err_forget", "mia_svc_conf_nonmember", "acc_retain", "acc_test"),
}
"""UGradSL's Avg. Gap list (UA, MIA_Score, RA, TA), by whether a whole class is forgotten."""

AVG_GAP_UGRADSL5 = {
    whole_class: (*names, "mia_acc_forget_test") for whole_class, names in AVG_GAP_UGRADSL.items()
}
"""The same with Add. MIA, as in UGradSL's Table 4."""

SVC_GAP4 = (
    "mia_svc_correctness_nonmember",
    "mia_svc_conf_nonmember",
    "mia_svc_entropy_nonmember",
    "mia_svc_prob_nonmember",
)
"""The four attacks of Jia et al. that Akbari et al. use in another form."""
SVC_CHUNKED_GAP4 = tuple(name.replace("svc_", "svc_chunked_") for name in SVC_GAP4)
"""The four attacks whose mean gap Akbari et al. call "best attack MIA"."""

MEAN_GAPS = {
    whole_class: {
        "avg_gap_natmu": AVG_GAP_NATMU[whole_class],
        "avg_gap_ugradsl": AVG_GAP_UGRADSL[whole_class],
        "avg_gap_ugradsl5": AVG_GAP_UGRADSL5[whole_class],
        "mia_svc_gap4": SVC_GAP4,
        "mia_svc_chunked_gap4": SVC_CHUNKED_GAP4,
    }
    for whole_class in (True, False)
}
"""Metrics that are the mean gap of others, with these others, by whether a whole class is forgotten."""
